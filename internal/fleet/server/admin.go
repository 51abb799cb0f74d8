package server

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/diagnose"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
	"fettle/internal/loop"
)

// approvalLife is how long an approval holds where its giver names no end.
const approvalLife = time.Hour

type admin struct {
	wire.UnimplementedAdminServiceServer
	s *Server
}

// incidents returns the incidents that are remembered, oldest first.
func (s *Server) incidents(ctx context.Context, ended bool) ([]fettle.Incident, error) {
	var list []fettle.Incident
	err := s.ask(ctx, func(m *incident.Mind) {
		for _, i := range m.Incidents() {
			if ended || !i.State.Ended() {
				list = append(list, i)
			}
		}
	})
	return list, err
}

// headed is a History that can say where the log ends without reading it. Status
// says nothing of the log where it cannot.
type headed interface {
	Head(ctx context.Context) (loop.Head, error)
}

// Status implements wire.AdminServiceServer.
func (a *admin) Status(ctx context.Context, _ *wire.StatusRequest) (*wire.StatusResponse, error) {
	freeze, err := a.s.frozen(ctx)
	if err != nil {
		return nil, err
	}
	open, err := a.s.incidents(ctx, false)
	if err != nil {
		return nil, err
	}
	r := &wire.StatusResponse{Schema: wire.Schema, Fleet: a.s.o.CA.Fleet(), Version: a.s.o.Version, Freeze: freeze.GetJson(), OpenIncidents: int32(len(open))}
	for _, i := range open {
		if i.State == fettle.Proposed || i.State == fettle.Escalated {
			r.WaitingForPeople++
		}
	}
	if h, ok := a.s.o.History.(headed); ok {
		head, err := h.Head(ctx)
		if err != nil {
			return nil, err
		}
		r.LogEntries, r.LogHash = head.Entries, head.Hash
	}
	for _, h := range a.s.known() {
		h.mu.Lock()
		r.Hosts++
		if h.session != nil {
			r.Connected++
		}
		if len(freeze.GetJson()) > 0 && (h.session == nil || !h.frozen.fleet) {
			r.NotFrozen = append(r.NotFrozen, string(h.subject))
		}
		h.mu.Unlock()
	}
	r.Gossip = a.s.gossipStatus()
	r.Authority = a.s.authorityStatus()
	r.Store = a.s.storeStatus()
	return r, nil
}

// Incidents implements wire.AdminServiceServer.
func (a *admin) Incidents(r *wire.IncidentsRequest, out wire.AdminService_IncidentsServer) error {
	list, err := a.s.incidents(out.Context(), r.GetEnded())
	if err != nil {
		return err
	}
	send := func(i fettle.Incident) error {
		data, err := packed(i)
		if err == nil {
			err = out.Send(&wire.IncidentsResponse{Json: data})
		}
		return err
	}
	if h, ok := a.s.o.History.(shelved); ok && r.GetEnded() { // they are older
		remembered := map[string]bool{}
		for _, i := range list {
			remembered[i.ID] = true
		}
		err := h.Ended(out.Context(), func(i fettle.Incident) error {
			if remembered[i.ID] {
				return nil
			}
			return send(i)
		})
		if err != nil {
			return err
		}
	}
	for _, i := range list {
		if err := send(i); err != nil {
			return err
		}
	}
	return nil
}

// Incident implements wire.AdminServiceServer.
func (a *admin) Incident(ctx context.Context, r *wire.IncidentRequest) (*wire.IncidentResponse, error) {
	var i fettle.Incident
	found := false
	if err := a.s.ask(ctx, func(m *incident.Mind) { i, found = m.Incident(r.GetId()) }); err != nil {
		return nil, err
	}
	if !found {
		var err error
		if i, found, err = a.s.archived(ctx, r.GetId()); err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, status.Errorf(codes.NotFound, "there is no incident %.40q (see `fettle incidents`)", r.GetId())
	}
	data, err := packed(i)
	return &wire.IncidentResponse{Json: data}, err
}

// packed packs an incident, with a shorter story where it is too large; the log
// has all of it.
func packed(i fettle.Incident) ([]byte, error) {
	data, err := wire.Pack(i)
	if err != nil {
		i.Story = store.Slim(i.Story)
		data, err = wire.Pack(i)
	}
	return data, err
}

// said names who says something: the certificate's name, which was checked, and in
// brackets the person's that came with it, which is that person's own word.
func said(ctx context.Context, person string) string {
	id := callerOf(ctx).name.ID
	person = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, person)
	if person == "" || person == id || len(person) > 64 {
		return id
	}
	return id + " (" + person + ")"
}

// Answer implements wire.AdminServiceServer.
func (a *admin) Answer(ctx context.Context, r *wire.AnswerRequest) (*wire.AnswerResponse, error) {
	answer, err := wire.Unpack[incident.Answer](r.GetJson())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := a.s.over(ctx, answer.Incident); err != nil {
		return nil, err
	}
	answer.By, answer.Why = said(ctx, answer.By), cut(answer.Why, maxWhy)
	answer.Until = time.Time{}
	if answer.Say == incident.SayApprove {
		life := time.Duration(r.GetForNs())
		if life <= 0 {
			life = approvalLife
		}
		answer.Until = a.s.o.Clock.Now().Add(life)
	}
	if err := a.s.signedBy(ctx, &answer, r); err != nil {
		return nil, err
	}
	t := a.s.term.Load()
	if t == nil {
		return nil, errStarting
	}
	return &wire.AnswerResponse{}, t.brain.Answer(ctx, answer)
}

// SetFreeze implements wire.AdminServiceServer. It answers when the freeze is in
// effect here; Hosts shows which agents have confirmed it.
func (a *admin) SetFreeze(ctx context.Context, r *wire.SetFreezeRequest) (*wire.SetFreezeResponse, error) {
	a.s.feed(incident.Input{Freeze: &guard.Freeze{By: said(ctx, r.GetBy()), Since: a.s.o.Clock.Now(), Why: cut(r.GetWhy(), maxWhy)}})
	return &wire.SetFreezeResponse{}, a.s.tellFreeze(ctx)
}

// Thaw implements wire.AdminServiceServer.
func (a *admin) Thaw(ctx context.Context, r *wire.ThawRequest) (*wire.ThawResponse, error) {
	a.s.feed(incident.Input{Thaw: true, ThawBy: said(ctx, r.GetBy())})
	return &wire.ThawResponse{}, a.s.tellFreeze(ctx)
}

// tellFreeze tells all agents what is in effect now.
func (s *Server) tellFreeze(ctx context.Context) error {
	freeze, err := s.frozen(ctx)
	if err != nil {
		return err
	}
	for _, h := range s.known() {
		if x := h.current(); x != nil {
			x.push(&wire.SessionResponse{What: &wire.SessionResponse_Freeze{Freeze: freeze}})
		}
	}
	return nil
}

// Groups implements wire.AdminServiceServer.
func (a *admin) Groups(_ *wire.GroupsRequest, out wire.AdminService_GroupsServer) error {
	var list []diagnose.Group
	if err := a.s.ask(out.Context(), func(m *incident.Mind) { list = m.Groups() }); err != nil {
		return err
	}
	for _, g := range list {
		data, err := wire.Pack(g)
		if err == nil {
			err = out.Send(&wire.GroupsResponse{Json: data})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Conditions implements wire.AdminServiceServer.
func (a *admin) Conditions(_ *wire.ConditionsRequest, out wire.AdminService_ConditionsServer) error {
	var list []fettle.Condition
	if err := a.s.ask(out.Context(), func(m *incident.Mind) { list = m.View().Raised() }); err != nil {
		return err
	}
	for _, c := range list {
		data, err := wire.Pack(c)
		if err == nil {
			err = out.Send(&wire.ConditionsResponse{Json: data})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Log implements wire.AdminServiceServer.
func (a *admin) Log(r *wire.LogRequest, out wire.AdminService_LogServer) error {
	enough := errors.New("enough")
	n := int64(0)
	err := a.s.o.History.Log(out.Context(), r.GetFrom(), func(e loop.Entry) error {
		if n++; r.GetMost() > 0 && n > r.GetMost() {
			return enough
		}
		data, err := wire.Pack(e)
		if err != nil {
			return err
		}
		return out.Send(&wire.LogResponse{Json: data})
	})
	if errors.Is(err, enough) {
		return nil
	}
	return err
}

// Watch implements wire.AdminServiceServer.
func (a *admin) Watch(_ *wire.WatchRequest, out wire.AdminService_WatchServer) error {
	w, stop := a.s.watchers.add() // before the list is read, so that nothing is missed in between
	defer stop()
	open, err := a.s.incidents(out.Context(), false)
	if err != nil {
		return err
	}
	for _, i := range open {
		i.Story = nil
		if err := a.send(out, happened{incident: i}); err != nil {
			return err
		}
	}
	for {
		select {
		case h := <-w.ch:
			if err := a.send(out, h); err != nil {
				return err
			}
		case <-out.Context().Done():
			return out.Context().Err()
		}
	}
}

func (a *admin) send(out wire.AdminService_WatchServer, h happened) error {
	m := &wire.WatchResponse{Missed: h.missed}
	var err error
	if m.Json, err = wire.Pack(h.incident); err != nil {
		return err
	}
	for _, e := range h.events {
		data, err := wire.Pack(e)
		if err != nil {
			return err
		}
		m.Events = append(m.Events, data)
	}
	return out.Send(m)
}
