package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"runtime/debug"

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
		wire.EnrolService_Join_FullMethodName:       anybody, // it brings a token
		wire.EnrolService_Renew_FullMethodName:      pki.RoleAgent,
		wire.AgentService_Session_FullMethodName:    pki.RoleAgent,
		wire.AdminService_Status_FullMethodName:     pki.RoleViewer,
		wire.AdminService_Incidents_FullMethodName:  pki.RoleViewer,
		wire.AdminService_Incident_FullMethodName:   pki.RoleViewer,
		wire.AdminService_Hosts_FullMethodName:      pki.RoleViewer,
		wire.AdminService_Groups_FullMethodName:     pki.RoleViewer,
		wire.AdminService_Conditions_FullMethodName: pki.RoleViewer,
		wire.AdminService_Log_FullMethodName:        pki.RoleViewer,
		wire.AdminService_Watch_FullMethodName:      pki.RoleViewer,
		wire.AdminService_SetFreeze_FullMethodName:  pki.RoleOperator,
		wire.AdminService_Thaw_FullMethodName:       pki.RoleApprover, // it lets actions go on
		wire.AdminService_Answer_FullMethodName:     pki.RoleApprover,
		wire.AdminService_Forget_FullMethodName:     pki.RoleAdmin,
		wire.AdminService_JoinToken_FullMethodName:  pki.RoleAdmin,
	}[method]
	return role, ok
}

// caller is who makes a call.
type caller struct {
	name pki.Name
	cert *x509.Certificate
}

type callerKey struct{}

// callerOf returns who makes the call of a handler; the zero caller of a Join.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// admit checks who calls and whether they may, and puts them into the context.
func (s *Server) admit(ctx context.Context, method string) (context.Context, error) {
	need, ok := needs(method)
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "%s is not known here (upgrade the server)", method)
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "the connection has no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "the connection is not TLS")
	}
	if need == anybody {
		return ctx, nil
	}
	name, cert, err := s.identity.Load().Peer(info.State, s.o.Clock.Wall())
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	if !name.Role.Includes(need) {
		return nil, status.Errorf(codes.PermissionDenied, "this needs the role %s, and %s has the role %s (use an identity that has it)", need, name.ID, name.Role)
	}
	if name.Role == pki.RoleAgent && !s.o.CA.Admitted(name.ID) {
		return nil, status.Errorf(codes.PermissionDenied, "host %s was sent away from the fleet (join again with a new token)", name.ID)
	}
	return context.WithValue(ctx, callerKey{}, caller{name, cert}), nil
}

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	if ctx, err = s.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wire.CallTimeout)
		defer cancel()
	}
	defer s.caught(info.FullMethod, &err)
	resp, err = handle(ctx, req)
	return resp, coded(err)
}

// stream returns the interceptor of streams, which end with ctx.
func (s *Server) stream(ctx context.Context) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
		own, err := s.admit(ss.Context(), info.FullMethod)
		if err != nil {
			return err
		}
		own, cancel := context.WithCancel(own)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		defer s.caught(info.FullMethod, &err)
		return coded(handle(srv, &withContext{ss, own}))
	}
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (w *withContext) Context() context.Context { return w.ctx }

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
