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
// Which fault is where:
//
//	the broker is absent at start             TestRabbitMQ/broker-absent-at-start, TestNoBroker of the command
//	the broker is restarted                   TestRabbitMQ/broker-restarted
//	the broker is silent (SIGSTOP)            TestRabbitMQ/broker-silent, TestSilentServer
//	memory and disk alarms                    TestRabbitMQ/memory-alarm, TestRabbitMQ/disk-alarm
//	connections cut, half open, trickling     TestNetwork; between publish and confirm also broker/brokertest
//	a queue with other arguments, passwords   broker/rabbitmq, broker/jetstream
//	other programs' messages                  broker/brokertest, message
//	committed ids come again                  TestKill: every kill; output, workerpool; TestRepeatedRequest of the command
//	a worker panics                           workerpool
//	kill -9 under load, and in a drain        TestKill, TestKillLong, TestKillDraining, TestStandby
//	death at a named point                    TestCrashPoint, TestCrashWhileSettling, TestInjected; output
//	a missing or read-only output folder      output, testdata of the command
//	a full disk, EIO                          TestDiskFull; at each position: TestDiskError, TestInjected, output; the store: broker/jetstream/embedded
//	orphans, torn files                       TestKill by Checker.Final; output
//	SIGTERM under load, twice, while starting TestTerminate, TestTerminateStarting
//	loss of power                             TestPowerLoss, TestPowerLossNewBlock; the disk: faults/lossyfs
//	a slow sink, ten times the load           TestSlowSink, TestBacklog
//	another number of shards                  pipeline
package faults
