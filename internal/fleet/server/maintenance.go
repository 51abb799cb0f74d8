package server

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/wire"
	"fettle/internal/judge/guard"
	"fettle/internal/judge/incident"
)

const (
	// maxWindows is how many windows of maintenance there may be: more than people
	// keep apart.
	maxWindows = 200
	// maxWindow is how long one may be, and how far ahead it may begin.
	maxWindow = 366 * 24 * time.Hour
)

// BeginMaintenance implements wire.AdminServiceServer. It answers when the window is
// in effect here; agents are told at once, those that are away when they are back.
func (a *admin) BeginMaintenance(ctx context.Context, r *wire.BeginMaintenanceRequest) (*wire.BeginMaintenanceResponse, error) {
	now := a.s.o.Clock.Now()
	w := guard.Window{
		ID: "m-" + strings.ToLower(rand.Text()[:6]), By: said(ctx, r.GetBy()), Why: cut(r.GetWhy(), maxWhy),
		From: now, Every: time.Duration(r.GetEveryNs()),
	}
	if r.GetFromUnix() != 0 {
		w.From = time.Unix(r.GetFromUnix(), 0)
	}
	length := time.Duration(r.GetForNs())
	if length != 0 {
		w.Until = w.From.Add(length)
	}
	if hosts := strings.TrimSpace(r.GetHosts()); hosts == "*" || hosts == "@all" {
		w.All = true
	} else {
		list, err := fanout.Select(hosts, a.s.inventory())
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		for _, h := range list {
			w.Hosts = append(w.Hosts, fettle.Subject(h.ID))
		}
		slices.Sort(w.Hosts)
	}
	err := w.Check()
	switch {
	case err != nil:
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case length > maxWindow || w.From.Sub(now) > maxWindow || w.Every > maxWindow:
		return nil, status.Errorf(codes.InvalidArgument, "a window of maintenance is within a year (this one: %s)", w.Text())
	case w.Over(now):
		return nil, status.Errorf(codes.InvalidArgument, "it would be over already: %s", w.Text())
	}
	list, err := a.s.windows(ctx)
	if err != nil {
		return nil, err
	}
	if len(list) >= maxWindows {
		return nil, status.Errorf(codes.ResourceExhausted, "there are %d windows of maintenance already (end some: `fettle maintenance list`)", len(list))
	}
	a.s.feed(incident.Input{Window: &w})
	if err := a.s.tellMaintenance(ctx); err != nil {
		return nil, err
	}
	data, err := wire.Pack(w)
	return &wire.BeginMaintenanceResponse{Json: data}, err
}

// EndMaintenance implements wire.AdminServiceServer.
func (a *admin) EndMaintenance(ctx context.Context, r *wire.EndMaintenanceRequest) (*wire.EndMaintenanceResponse, error) {
	list, err := a.s.windows(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(list, func(w guard.Window) bool { return w.ID == r.GetId() }) {
		return nil, status.Errorf(codes.NotFound, "there is no window of maintenance %.40q (see `fettle maintenance list`)", r.GetId())
	}
	a.s.feed(incident.Input{EndWindow: r.GetId(), EndedBy: said(ctx, r.GetBy())})
	return &wire.EndMaintenanceResponse{}, a.s.tellMaintenance(ctx)
}

// ListMaintenance implements wire.AdminServiceServer.
func (a *admin) ListMaintenance(ctx context.Context, _ *wire.ListMaintenanceRequest) (*wire.ListMaintenanceResponse, error) {
	list, err := a.s.windows(ctx)
	if err != nil {
		return nil, err
	}
	r := &wire.ListMaintenanceResponse{}
	for _, w := range list {
		data, err := wire.Pack(w)
		if err != nil {
			return nil, err
		}
		r.Json = append(r.Json, data)
	}
	return r, nil
}

// windows are those that are not over.
func (s *Server) windows(ctx context.Context) (list []guard.Window, err error) {
	err = s.ask(ctx, func(m *incident.Mind) { list = m.Windows() })
	return list, err
}

// maintenanceOf is what the agent of a host is told.
func maintenanceOf(list []guard.Window, host fettle.Subject) (*wire.Maintenance, error) {
	m := &wire.Maintenance{}
	for _, w := range list {
		if !w.Covers(host) {
			continue
		}
		if !w.All {
			w.Hosts = []fettle.Subject{host} // the others' are no concern of this one
		}
		data, err := wire.Pack(w)
		if err != nil {
			return nil, err
		}
		m.Json = append(m.Json, data)
	}
	return m, nil
}

// tellMaintenance tells all agents what is in effect now.
func (s *Server) tellMaintenance(ctx context.Context) error {
	list, err := s.windows(ctx)
	if err != nil {
		return err
	}
	for _, h := range s.known() {
		x := h.current()
		if x == nil {
			continue
		}
		m, err := maintenanceOf(list, h.subject)
		if err != nil {
			return err
		}
		x.push(&wire.SessionResponse{What: &wire.SessionResponse_Maintenance{Maintenance: m}})
	}
	return nil
}
