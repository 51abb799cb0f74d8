package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/segment"
	"fettle/internal/fleet/wire"
)

// fetchWait bounds getting a segment from another server: some megabytes, over a slow
// line.
const fetchWait = 2 * time.Minute

// holder is a History that keeps segments, as package store's does.
type holder interface {
	Segment(r segment.Ref) ([]byte, error)
}

// servers answers the other servers of the fleet, whoever leads.
type servers struct {
	wire.UnimplementedServerServiceServer
	s *Server
}

// local reports whether a method is answered by whichever server is called.
func local(method string) bool { return method == wire.ServerService_Segment_FullMethodName }

// Segment implements wire.ServerServiceServer.
func (v *servers) Segment(r *wire.SegmentRequest, out wire.ServerService_SegmentServer) error {
	h, ok := v.s.o.History.(holder)
	if !ok {
		return status.Error(codes.Unimplemented, "this server's log has no files")
	}
	ref, err := segment.ParseRef(r.GetRef())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	data, err := h.Segment(ref)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return status.Errorf(codes.NotFound, "this server does not hold %s", ref)
	case err != nil:
		return status.Error(codes.DataLoss, err.Error())
	}
	for len(data) > 0 {
		part := data[:min(len(data), wire.Chunk)]
		if err := out.Send(&wire.SegmentResponse{Data: part}); err != nil {
			return err
		}
		data = data[len(part):]
	}
	return nil
}

// FetchSegment gets a segment's bytes from the server at an address (store.Fetch). It
// returns an error that wraps fs.ErrNotExist where that one does not hold it.
func (s *Server) FetchSegment(ctx context.Context, address string, r segment.Ref) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	conn, err := wire.Dial(address, pki.ClientTLS(s.identity.Load, s.o.Clock.Wall))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ref, err := wire.Pack(r)
	if err != nil {
		return nil, err
	}
	stream, err := wire.NewServerServiceClient(conn).Segment(ctx, &wire.SegmentRequest{Ref: ref})
	if err != nil {
		return nil, err
	}
	var data bytes.Buffer
	for {
		part, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return data.Bytes(), nil
		case status.Code(err) == codes.NotFound:
			return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		case err != nil:
			return nil, err
		}
		data.Write(part.GetData())
		if int64(data.Len()) > r.Bytes {
			return nil, fmt.Errorf("it sends more than the %d bytes of %s", r.Bytes, r)
		}
	}
}
