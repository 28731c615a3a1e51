package store

import (
	"context"
	"errors"
	"fmt"
)

// Audit keeps a command that was asked for, with the database's time. The same ID again
// sets its Outcome. Texts have at most MaxName bytes, What, Why and Outcome are cut to MaxWhy.
func (s *Store) Audit(ctx context.Context, a Audited) error {
	if err := errors.Join(checkName("id", a.ID), checkText("name", a.Who, MaxName), checkText("address", a.From, MaxName)); err != nil {
		return err
	}
	return s.db.update(ctx, "audit a command", func(q session) error {
		_, err := q.exec(`INSERT INTO audits (id, who, from_addr, what, why, outcome, at) VALUES ($1, $2, $3, $4, $5, $6, {now})
			ON CONFLICT (id) DO UPDATE SET outcome = excluded.outcome`,
			a.ID, a.Who, a.From, clean(a.What), clean(a.Why), clean(a.Outcome))
		return err
	})
}

// Audits returns commands, the newest first: those that were asked for before the one with
// that ID, or all if it is empty; 1 to MaxList.
func (s *Store) Audits(ctx context.Context, before string, limit int) (audits []Audited, err error) {
	if err := checkText("id", before, MaxName); err != nil {
		return nil, err
	}
	if limit < 1 || limit > MaxList {
		return nil, fmt.Errorf("%w list: the limit has to be 1 to %d", ErrInvalid, MaxList)
	}
	err = s.db.view(ctx, "list commands", func(q session) error {
		audits = nil
		return q.each(`SELECT id, who, from_addr, what, why, outcome, at FROM audits
			WHERE CAST($1 AS text) = '' OR n < (SELECT n FROM audits WHERE id = $1) ORDER BY n DESC LIMIT $2`,
			[]any{before, limit}, func(scan func(...any) error) error {
				var a Audited
				var ms int64
				err := scan(&a.ID, &a.Who, &a.From, &a.What, &a.Why, &a.Outcome, &ms)
				a.At = at(ms)
				audits = append(audits, a)
				return err
			})
	})
	return audits, err
}
