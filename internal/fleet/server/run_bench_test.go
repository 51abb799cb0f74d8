package server_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/server"
	"fettle/internal/fleet/wire"
)

// BenchmarkRun measures a command's way to many agents and back, over real sockets
// with mutual TLS: the agents here answer at once.
func BenchmarkRun(b *testing.B) {
	for _, agents := range []int{100, 1000} {
		b.Run(fmt.Sprint(agents), func(b *testing.B) {
			f := newFleet(b, func(o *server.Options) { o.Interval, o.LostAfter, o.Log = 5*time.Second, time.Minute, nil })
			ctx, cancel := context.WithCancel(b.Context())
			var all sync.WaitGroup
			defer all.Wait()
			defer cancel()
			for i := range agents {
				echo(ctx, b, f, &all, fmt.Sprintf("a%d", i))
			}
			api := f.admin(pki.RoleAdmin)
			for b.Loop() {
				got := run(ctx, api, argv("true"), nil)
				if got.err != nil || got.sum.Counts[fanout.Succeeded] != agents {
					b.Fatalf("%v %+v", got.err, got.sum)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(agents), "µs/host")
		})
	}
}

// echo is an agent that says that every command succeeded.
func echo(ctx context.Context, b *testing.B, f *fleet, all *sync.WaitGroup, label string) {
	b.Helper()
	id, _ := f.join(label)
	stream, err := f.session(ctx, id)
	if err != nil {
		b.Fatal(err)
	}
	first := hello(id.Name.Host())
	first.GetHello().Commands, first.GetHello().Label = true, label
	if err := stream.Send(first); err != nil {
		b.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.GetWelcome() == nil {
		b.Fatalf("%v %v", m, err)
	}
	all.Go(func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			answer := &wire.SessionRequest{}
			switch w := m.GetWhat().(type) {
			case *wire.SessionResponse_Ping:
				answer.What = &wire.SessionRequest_Pong{Pong: &wire.Pong{Id: w.Ping.GetId()}}
			case *wire.SessionResponse_Command:
				answer.What = &wire.SessionRequest_CommandEnd{CommandEnd: &wire.CommandEnd{Id: w.Command.GetId()}}
			default:
				continue
			}
			if stream.Send(answer) != nil {
				return
			}
		}
	})
}
