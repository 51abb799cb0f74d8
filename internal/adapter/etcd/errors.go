package etcd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"fettle/internal/fettle"
)

// answer sorts what came back from a call to a member by what may be concluded.
type answer int

const (
	fine          answer = iota
	notSent              // refused or unreachable before anything was sent: nothing was asked
	denied               // the member does not take us: certificate, user
	ended                // the member shows a certificate that has ended: nobody with a right clock talks to it
	noOutcome            // sent, and no answer: it may still take effect
	notYet               // nothing was proposed: the cluster calls itself unhealthy, or the learner lags
	notLeader            // only the leader does this
	notMember            // no member of this identity
	isMember             // a member of this identity or peer URL is there already
	notLearner           // it has a vote already
	tooMany              // no more learners are accepted
	compacted            // the revision is gone
	future               // the revision has not come yet
	noSpace              // the quota is used up
	learnerSaysNo        // a learner does not answer this
	failed               // it said no, for another reason
)

// known are the errors of etcd that mean something here. By text: not all of
// them are variables of its client.
var known = map[string]answer{
	rpctypes.ErrorDesc(rpctypes.ErrGRPCUnhealthy):              notYet,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCLearnerNotReady):        notYet,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberNotEnoughStarted): failed,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCNotLeader):              notLeader,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberNotFound):         notMember,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberExist):            isMember,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCPeerURLExist):           isMember,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberNotLearner):       notLearner,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCTooManyLearners):        tooMany,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCCompacted):              compacted,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCFutureRev):              future,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCNoSpace):                noSpace,
	"etcdserver: rpc not supported for learner":                learnerSaysNo,
	// A cluster with users: these come as InvalidArgument, some of them.
	rpctypes.ErrorDesc(rpctypes.ErrGRPCUserEmpty):        denied,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCAuthFailed):       denied,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCAuthOldRevision):  denied,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCInvalidAuthToken): denied,
	rpctypes.ErrorDesc(rpctypes.ErrGRPCPermissionDenied): denied,
	// 3.4 sends what its maintenance calls are denied for as it is, with the code
	// Unknown.
	"auth: user name is empty":                                 denied,
	"auth: permission denied":                                  denied,
	"auth: authentication failed, invalid user ID or password": denied,
	"auth: invalid auth token":                                 denied,
	"auth: revision in header is old":                          denied,
}

// errNoLeader says that no leader could be found to send a call to.
var errNoLeader = errors.New("no leader answers here")

// sortError tells what an error of a call means. What is not known to be harmless is
// noOutcome: the spellings of a deadline alone are four.
func sortError(err error) answer {
	if err == nil {
		return fine
	}
	var unconnected *dialError
	if errors.Is(err, errNoLeader) || errors.As(err, &unconnected) {
		return notSent
	}
	var turnedAway *deniedError
	if errors.As(err, &turnedAway) {
		return denied
	}
	text := rpctypes.ErrorDesc(err)
	if a, ok := known[text]; ok {
		return a
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return noOutcome
	}
	s, ok := status.FromError(err)
	if !ok {
		return failed
	}
	if a, ok := untrusted(text); ok && slices.Contains([]codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Canceled}, s.Code()) {
		return a
	}
	switch s.Code() {
	case codes.Unavailable:
		switch {
		case strings.Contains(text, "Error while dialing"), strings.Contains(text, "error reading server preface"):
			return notSent
		}
		return noOutcome
	case codes.Unknown, codes.DeadlineExceeded, codes.Canceled, codes.Aborted, codes.Internal:
		return noOutcome
	case codes.PermissionDenied, codes.Unauthenticated:
		return denied
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange, codes.ResourceExhausted, codes.NotFound, codes.AlreadyExists, codes.Unimplemented:
		return failed
	default:
		return noOutcome
	}
}

// untrusted tells who refused whom when no connection came about. A call that
// waited for one until its time was up has the reason in its text too, and was
// never sent. A handshake that merely got no answer is not among them.
func untrusted(text string) (answer, bool) {
	switch {
	case strings.Contains(text, "x509: certificate has expired"):
		return ended, true
	case strings.Contains(text, "remote error: tls: "):
		return denied, true
	case strings.Contains(text, "authentication handshake failed") && (strings.Contains(text, "tls: ") || strings.Contains(text, "x509: ")):
		return denied, true
	}
	return 0, false
}

// refused reports whether the machine itself said that nobody listens there: the
// process is gone. A connection that timed out says nothing of the kind.
func refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || err != nil && strings.Contains(rpctypes.ErrorDesc(err), syscall.ECONNREFUSED.Error())
}

// deniedHint is what lets the adapter see and do what a cluster keeps from it.
const deniedHint = "give the adapter a client certificate that the cluster accepts, and where it has users one in the name of a user with the role root (tls in its configuration)"

// outcome turns an error of a call that changes something into one that says
// what may be concluded from it.
func outcome(op string, s fettle.Subject, err error) error {
	e := &fettle.Error{Op: op, Subject: s, Class: fettle.Broken, Err: err}
	switch sortError(err) {
	case fine:
		return nil
	case notSent:
		e.Class, e.Hint = fettle.Refused, "the member that was to be asked does not answer; it is tried again"
	case denied:
		e.Class, e.Hint = fettle.Denied, deniedHint
	case ended:
		e.Class, e.Hint = fettle.Refused, "the member's certificate, or its authority's, has ended: have it renewed; etcd takes the new file without a restart"
	case noOutcome:
		e.Class, e.Hint = fettle.NoAnswer, "it may still take effect; the cluster is asked"
	case notYet:
		e.Class, e.Hint = fettle.Refused, "the cluster takes no change while a voter has been connected for less than five seconds; it is tried again"
	}
	return e
}

// broken is an error of this machine that promises nothing.
func broken(op string, s fettle.Subject, err error, hint string) error {
	if err == nil {
		return nil
	}
	return &fettle.Error{Op: op, Subject: s, Class: fettle.Broken, Err: err, Hint: hint}
}
