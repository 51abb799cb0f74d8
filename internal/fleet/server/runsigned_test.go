package server_test

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fleet/fanout"
	"fettle/internal/fleet/pki"
	"fettle/internal/fleet/warrant"
	"fettle/internal/fleet/wire"
)

// TestRunUnsigned: of a fettle of an older version, which signs nothing, hosts run
// nothing, and that is said.
func TestRunUnsigned(t *testing.T) {
	f := newFleet(t)
	f.runner(everybody)
	old := f.admin(pki.RoleAdmin).(*person).AdminServiceClient
	got := run(t.Context(), old, argv("touch", filepath.Join(t.TempDir(), "x")), nil)
	for _, r := range got.results {
		if r.Outcome != fanout.Refused || r.Began || !strings.Contains(r.Why, "only what the person has signed") || !strings.Contains(r.Hint, "upgrade") {
			t.Errorf("%+v", r)
		}
	}
	if got.err != nil || len(got.results) != 1 || got.sum.Exit() != 1 {
		t.Errorf("%+v", got)
	}
}

// TestRunSignatures: what comes instead of the signature that was asked for runs
// nothing, and harms nobody else.
func TestRunSignatures(t *testing.T) {
	f := newFleet(t)
	f.runner(everybody)
	ann := f.admin(pki.RoleAdmin).(*person)
	body, err := warrant.Program{Argv: []string{"true"}}.Body()
	if err != nil {
		t.Fatal(err)
	}
	begin := func(program []byte, id string, words ...string) *wire.RunSignedRequest {
		return &wire.RunSignedRequest{What: &wire.RunSignedRequest_Begin{Begin: &wire.RunBegin{Run: &wire.RunRequest{Hosts: "*", Argv: words}, Program: program, Id: id}}}
	}
	signature := func(host string, s warrant.Signed) *wire.RunSignedRequest {
		return &wire.RunSignedRequest{What: &wire.RunSignedRequest_Signature{Signature: &wire.RunSignature{Host: host, Signed: &wire.SignedCommand{Note: s.Note, Certificate: s.Certificate}}}}
	}
	word := func(w *wire.RunSign) warrant.Run {
		return warrant.Run{Fleet: f.ca.Fleet(), Run: "r1", Host: "host:other", Name: "x", Nonce: w.GetNonce(), Within: time.Minute, Body: warrant.HashOf(body)}
	}
	for name, c := range map[string]struct {
		first  *wire.RunSignedRequest
		answer func(w *wire.RunSign) *wire.RunSignedRequest // nil: it hangs up
		code   codes.Code
		why    string
	}{
		"no beginning":  {first: &wire.RunSignedRequest{}, code: codes.InvalidArgument},
		"no program":    {first: begin(nil, "r1"), code: codes.InvalidArgument},
		"two programs":  {first: begin(body, "r1", "false"), code: codes.InvalidArgument},
		"no name":       {first: begin(body, ""), code: codes.InvalidArgument},
		"a long name":   {first: begin(body, strings.Repeat("x", 100)), code: codes.InvalidArgument},
		"hangs up":      {first: begin(body, "r1"), why: "has hung up"},
		"signs nothing": {first: begin(body, "r1"), answer: func(w *wire.RunSign) *wire.RunSignedRequest { return signature(w.GetHost(), warrant.Signed{}) }, why: "did not sign"},
		"signs nonsense": {first: begin(body, "r1"), answer: func(w *wire.RunSign) *wire.RunSignedRequest {
			return signature(w.GetHost(), warrant.Signed{Note: []byte("x")})
		}, why: "the signed command"},
		"for another host": {first: begin(body, "r1"), answer: func(w *wire.RunSign) *wire.RunSignedRequest {
			s, err := warrant.SignRun(word(w), ann.id)
			if err != nil {
				t.Error(err)
			}
			return signature(w.GetHost(), s)
		}, why: "is for host:other"},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := ann.RunSigned(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(c.first); err != nil {
				t.Fatal(err)
			}
			ended := ""
			for {
				m, err := stream.Recv()
				if errors.Is(err, io.EOF) || status.Code(err) == c.code && c.code != codes.OK {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if w := m.GetSign(); w != nil && c.answer == nil {
					err = stream.CloseSend()
				} else if w != nil {
					err = stream.Send(c.answer(w))
				}
				if err != nil {
					t.Fatal(err)
				}
				ended += string(m.GetEvent().GetResult())
			}
			if !strings.Contains(ended, c.why) || (c.why != "") != strings.Contains(ended, `"refused"`) {
				t.Errorf("%s, want %q", ended, c.why)
			}
		})
	}
	if got := run(t.Context(), ann, argv("true"), nil); got.sum == nil || got.sum.Exit() != 0 {
		t.Errorf("then: %+v", got)
	}
}
