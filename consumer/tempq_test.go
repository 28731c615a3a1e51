package consumer

import (
	"context"

	"async-data-processor/broker"
	"async-data-processor/broker/brokertest"
)

type queues struct{ *brokertest.Client } // TEMP

func (q queues) Backlogs(ctx context.Context, from int) ([]broker.Backlog, error) {
	return q.Beyond(ctx, from, 8)
}
