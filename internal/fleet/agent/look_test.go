package agent

import (
	"sync/atomic"
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/fleet/wire"
)

// inquisitive is a server that has an agent look at its lamp again and again.
type inquisitive struct {
	wire.UnimplementedAgentServiceServer
	fleet string
	hot   *atomic.Int64 // how hot the lamp is; hotter before each look
	told  chan *wire.SessionRequest
}

func (s *inquisitive) Session(stream wire.AgentService_SessionServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	welcome := &wire.Welcome{Schema: wire.Schema, Fleet: s.fleet, IntervalNs: int64(time.Second)}
	if err := stream.Send(&wire.SessionResponse{What: &wire.SessionResponse_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	look, err := wire.Pack(fettle.Look{Subject: "lamp:h1/hall", Probe: "lamp.state"})
	if err != nil {
		return err
	}
	for id := uint64(1); ; {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		select {
		case s.told <- m:
		case <-stream.Context().Done():
			return nil
		}
		if m.GetSettled() == nil && m.GetLookAnswer() == nil {
			continue
		}
		if s.hot.Load() > 0 {
			s.hot.Store(0)
		} else {
			s.hot.Store(100)
		}
		ask := &wire.Look{Id: id, Json: [][]byte{look}, WithinNs: int64(patience)}
		if err := stream.Send(&wire.SessionResponse{What: &wire.SessionResponse_Look{Look: ask}}); err != nil {
			return err
		}
		id++
	}
}

// What an agent judges of what it saw for a look arrives before the answer: who
// asked decides on it.
func TestJudgedBeforeAnswered(t *testing.T) {
	fleet := minted(t)
	var heat atomic.Int64
	l := &lamp{found: found("hall"), heat: heat.Load}
	o := options(t, l)
	s := &inquisitive{fleet: fleet.server.Name.Fleet, hot: &heat, told: make(chan *wire.SessionRequest)}
	o.Server, o.Identity = serve(t, fleet, s), fleet.agent
	_, stop := start(t, o)
	defer stop()
	hot, answers := false, 0
	for late := time.After(patience); answers < 200; {
		select {
		case m := <-s.told:
			for _, data := range m.GetReport().GetConditions() {
				c, err := wire.Unpack[fettle.Condition](data)
				if err != nil {
					t.Fatal(err)
				}
				if c.Code == "lamp.hot" {
					hot = c.Raised()
				}
			}
			if a := m.GetLookAnswer(); a != nil {
				seen, err := wire.Unpack[fettle.Observation](a.GetObservations()[0].GetJson())
				if err != nil {
					t.Fatal(err)
				}
				if now, _ := seen.Facts.Int("heat"); hot != (now > 90) {
					t.Fatalf("answer %d says %d degrees, and that it is hot was told as %v", a.GetId(), now, hot)
				}
				answers++
			}
		case <-late:
			t.Fatalf("only %d answers", answers)
		}
	}
}
