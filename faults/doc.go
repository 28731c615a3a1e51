// Package faults hurts the program while it works, and looks for what got lost
// and what was written twice. It runs the real binary, as processes, over a real
// RabbitMQ and the embedded broker; nothing of the program imports it.
//
// A scenario is a pipeline under a load of clients that retry as users are told
// to, a fault that comes again and again at random moments, and the judgement of
// rig.Checker when the dust has settled. In the ordinary tests each has a few
// cycles. "make faults" is the campaign: hundreds of kills and a million entries
// for each engine, and a table of what came of it. The random choices follow
// from a seed, which is printed: -seed repeats them, the scheduling of the
// machine aside.
//
// Jobs are their own witnesses: each attempt holds a lock of its run, and notes when it
// begins and ends. The leases of attempts are short in the program that is built here.
//
// docs/guarantees.md says which test covers which fault; docs/results has the
// tables of long runs.
package faults
