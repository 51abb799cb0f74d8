package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/wire"
)

// anybody is the need of a call that brings its own proof.
const anybody pki.Role = "anybody"

// needs is the role that each call needs. A call that is not here is refused.
func needs(method string) (pki.Role, bool) {
	role, ok := map[string]pki.Role{
		wire.EnrolService_Join_FullMethodName:             anybody, // it brings a token
		wire.EnrolService_JoinServer_FullMethodName:       anybody, // likewise
		wire.EnrolService_Renew_FullMethodName:            pki.RoleAgent,
		wire.EnrolService_AuthorityKey_FullMethodName:     pki.RoleServer,
		wire.AdminService_Authorities_FullMethodName:      pki.RoleViewer,
		wire.AdminService_Renew_FullMethodName:            pki.RoleViewer,
		wire.AgentService_Session_FullMethodName:          pki.RoleAgent,
		wire.AdminService_Status_FullMethodName:           pki.RoleViewer,
		wire.AdminService_Incidents_FullMethodName:        pki.RoleViewer,
		wire.AdminService_Incident_FullMethodName:         pki.RoleViewer,
		wire.AdminService_Hosts_FullMethodName:            pki.RoleViewer,
		wire.AdminService_Groups_FullMethodName:           pki.RoleViewer,
		wire.AdminService_Conditions_FullMethodName:       pki.RoleViewer,
		wire.AdminService_Log_FullMethodName:              pki.RoleViewer,
		wire.AdminService_Permits_FullMethodName:          pki.RoleViewer,
		wire.AdminService_Watch_FullMethodName:            pki.RoleViewer,
		wire.AdminService_SetFreeze_FullMethodName:        pki.RoleOperator,
		wire.AdminService_BeginMaintenance_FullMethodName: pki.RoleOperator,
		wire.AdminService_EndMaintenance_FullMethodName:   pki.RoleApprover, // it lets actions go on
		wire.AdminService_ListMaintenance_FullMethodName:  pki.RoleViewer,
		wire.AdminService_Run_FullMethodName:              pki.RoleOperator, // and each host's own list
		wire.AdminService_RunSigned_FullMethodName:        pki.RoleOperator,
		wire.AdminService_Thaw_FullMethodName:             pki.RoleApprover, // it lets actions go on
		wire.AdminService_Answer_FullMethodName:           pki.RoleApprover,
		wire.AdminService_Forget_FullMethodName:           pki.RoleAdmin,
		wire.AdminService_JoinToken_FullMethodName:        pki.RoleAdmin,
		wire.AdminService_Servers_FullMethodName:          pki.RoleViewer,
		wire.AdminService_Backup_FullMethodName:           pki.RoleAdmin,
		wire.AdminService_Check_FullMethodName:            pki.RoleViewer,
		wire.AdminService_RemoveServer_FullMethodName:     pki.RoleAdmin,
		wire.AdminService_Rotate_FullMethodName:           pki.RoleAdmin,
		wire.ServerService_Segment_FullMethodName:         pki.RoleServer,
	}[method]
	return role, ok
}

// caller is who makes a call.
type caller struct {
	name    pki.Name
	cert    *x509.Certificate // nil: none was shown
	address string
	by      pki.Name // the server that passed the call on; zero: it came from the caller
}

type callerKey struct{}

// callerOf returns who makes the call of a handler; of a Join only the address.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// admit checks who calls and whether they may, as far as their certificate says it,
// and puts them into the context.
func (s *Server) admit(ctx context.Context, method string) (context.Context, caller, error) {
	none := caller{}
	need, ok := needs(method)
	if !ok {
		return nil, none, status.Errorf(codes.Unimplemented, "%s is not known here (upgrade the server)", method)
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, none, status.Error(codes.Unauthenticated, "the connection has no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, none, status.Error(codes.Unauthenticated, "the connection is not TLS")
	}
	c := caller{address: p.Addr.String()}
	if need != anybody || len(info.State.PeerCertificates) > 0 {
		var err error
		if c.name, c.cert, err = s.identity.Load().Peer(info.State, s.o.Clock.Wall()); err != nil && need != anybody {
			return nil, none, status.Error(codes.Unauthenticated, err.Error())
		}
		if c, err = s.behind(ctx, c); err != nil {
			return nil, none, err
		}
	}
	if need == anybody { // it brings its own proof, and may be somebody who was sent away
		c = caller{address: c.address, by: c.by}
	} else if !c.name.Role.Includes(need) {
		return nil, none, status.Errorf(codes.PermissionDenied, "this needs the role %s, and %s has the role %s (use an identity that has it)", need, c.name.ID, c.name.Role)
	}
	return context.WithValue(ctx, callerKey{}, c), c, nil
}

// belongs checks that the caller, and the server that passed the call on, were not
// sent away, as the store's register has it.
func (s *Server) belongs(ctx context.Context, c caller) error {
	for _, name := range []pki.Name{c.name, c.by} {
		in, err := s.o.Register.Admitted(ctx, name)
		switch {
		case err != nil:
			return status.Error(codes.Unavailable, err.Error())
		case !in:
			return status.Errorf(codes.PermissionDenied, "%s %s was sent away from the fleet (join again with a new token)", map[pki.Role]string{pki.RoleAgent: "host", pki.RoleServer: "server"}[name.Role], name.ID)
		}
	}
	return nil
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	ctx, c, err := s.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, has := ctx.Deadline(); !has {
		ctx, cancel = context.WithTimeout(ctx, wire.CallTimeout)
		defer cancel()
	}
	defer s.caught(info.FullMethod, &err)
	t, way, err := s.route(ctx, c)
	if err != nil {
		return nil, coded(err)
	}
	if t == nil {
		return way.unary(ctx, info.FullMethod, req, c)
	}
	defer t.calls.Done()
	defer context.AfterFunc(t.ctx, cancel)()
	if err := s.belongs(ctx, c); err != nil {
		return nil, err
	}
	resp, err = handle(ctx, req)
	return resp, coded(t.explain(err))
}

// stream returns the interceptor of streams, which end with ctx. Its frame is on the
// stack of every session while that lasts, so what needs room is done in functions
// that have returned by then.
func (s *Server) stream(ctx context.Context) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
		o, err := s.open(ctx, ss, info.FullMethod)
		if err != nil {
			return err
		}
		defer o.close()
		defer s.caught(info.FullMethod, &err)
		if local(info.FullMethod) {
			return coded(handle(srv, o))
		}
		if o.term == nil {
			return o.way.stream(o, info.FullMethod, o.who, &s.sessions)
		}
		return coded(o.term.explain(handle(srv, o)))
	}
}

// opened is a stream that was let in.
type opened struct {
	grpc.ServerStream
	ctx   context.Context
	who   caller
	term  *term   // nil: it is passed on
	way   passage // to the server that leads, where this one does not
	after []func()
}

func (o *opened) Context() context.Context { return o.ctx }

// close undoes what open did, the last first.
func (o *opened) close() {
	for _, f := range slices.Backward(o.after) {
		f()
	}
}

// open finds out whose stream this is and who answers it.
func (s *Server) open(ctx context.Context, ss grpc.ServerStream, method string) (_ *opened, err error) {
	o := &opened{ServerStream: ss}
	if o.ctx, o.who, err = s.admit(ss.Context(), method); err != nil {
		return nil, err
	}
	own, cancel := context.WithCancel(o.ctx)
	ends := context.AfterFunc(ctx, cancel)
	o.ctx, o.after = own, []func(){cancel, func() { ends() }}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	defer s.caught(method, &err)
	if local(method) {
		return o, s.belongs(own, o.who)
	}
	if o.term, o.way, err = s.route(own, o.who); err != nil {
		return nil, coded(err)
	}
	if o.term == nil {
		return o, nil
	}
	led := context.AfterFunc(o.term.ctx, cancel)
	o.after = append(o.after, o.term.calls.Done, func() { led() })
	return o, s.belongs(own, o.who)
}

// caught turns a panic in a handler into an error for its caller: one call that
// goes wrong must not end all others.
func (s *Server) caught(method string, err *error) {
	if v := recover(); v != nil {
		s.o.Log.Error("a call panicked", "method", method, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		*err = status.Errorf(codes.Internal, "%s failed inside of the server (this is a defect; the server's log has more)", method)
	}
}

// coded gives errors that have none a code.
func coded(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, errStarting):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	}
	return status.Error(codes.FailedPrecondition, err.Error())
}
