package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/charter"
	"fettle/internal/fleet/store"
	"fettle/internal/fleet/wire"
)

// archived is a History that can be backed up and checked, as package store's is.
type archived interface {
	Backup(ctx context.Context, w io.Writer, now time.Time) error
	Check(ctx context.Context) (entries int64, err error)
}

// chartered is a History whose epoch may have begun by an administrator's word.
type chartered interface {
	Charter(ctx context.Context) ([]byte, error)
}

// Backup implements wire.AdminServiceServer.
func (a *admin) Backup(_ *wire.BackupRequest, out wire.AdminService_BackupServer) error {
	h, ok := a.s.o.History.(archived)
	if !ok {
		return status.Error(codes.Unimplemented, "this server's store cannot be backed up")
	}
	a.s.o.Log.Info("the store is backed up", "by", callerOf(out.Context()).name.ID)
	return h.Backup(out.Context(), parts{out}, a.s.o.Clock.Wall())
}

// parts sends what is written.
type parts struct {
	out wire.AdminService_BackupServer
}

func (p parts) Write(data []byte) (int, error) {
	n := 0
	for len(data) > 0 {
		part := data[:min(len(data), wire.Chunk)]
		if err := p.out.Send(&wire.BackupResponse{Data: part}); err != nil {
			return n, err
		}
		n, data = n+len(part), data[len(part):]
	}
	return n, nil
}

// Check implements wire.AdminServiceServer.
func (a *admin) Check(ctx context.Context, _ *wire.CheckRequest) (*wire.CheckResponse, error) {
	h, ok := a.s.o.History.(archived)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "this server's log has no chain")
	}
	n, err := h.Check(ctx)
	r := &wire.CheckResponse{Entries: n}
	var broken *store.Broken
	if errors.As(err, &broken) {
		r.Broken = broken.Error()
		return r, nil
	}
	return r, err
}

// epoch is the administrator's word that the present epoch began, for agents; nil for
// the first.
func (s *Server) epoch(ctx context.Context) (*wire.SignedEpoch, error) {
	h, ok := s.o.History.(chartered)
	if !ok {
		return nil, nil
	}
	data, err := s.charter(ctx, h)
	if err != nil || data == nil {
		return nil, err
	}
	var c charter.Signed
	if err := json.Unmarshal(data, &c); err != nil {
		s.o.Log.Error("the charter of the epoch cannot be read: agents that have seen an earlier epoch will not obey", "error", err)
		return nil, nil
	}
	return &wire.SignedEpoch{Note: c.Note, Certificate: c.Certificate}, nil
}
