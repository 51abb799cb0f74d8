package agent

import (
	"bytes"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"

	"fettle/internal/act/execute"
	"fettle/internal/fleet/loghead"
	"fettle/internal/fleet/wire"
)

// distrustHint is what to do about a head that cannot be believed.
const distrustHint = "find out who answers as this fleet's server; nothing is done at its word until it shows a head of its log that a server of the fleet has signed"

// keptHead is the head of the server's log that this agent keeps, for the hello;
// nil where it keeps none.
func (a *Agent) keptHead() *wire.LogHead {
	h, ok := a.executor.Head()
	if !ok {
		return nil
	}
	return &wire.LogHead{Epoch: h.Epoch, Entries: h.Entries, Hash: h.Hash}
}

// meet holds the server of a new session to the last head that this agent keeps.
// What is wrong with it ends no session: the machine is still observed, and what is
// observed is told; only nothing is done.
func (x *session) meet(asked *wire.LogHead, signed *wire.SignedHead) {
	if x.a.unbound {
		return
	}
	if signed == nil {
		x.follows(x.a.executor.Meet(nil, ""))
		return
	}
	head, st, err := x.opened(signed)
	switch {
	case err != nil:
	case asked == nil:
		err = x.a.executor.Meet(&head, "")
	case st.Place == nil || st.Place.Seq != asked.GetEntries():
		err = x.a.executor.Distrust(distrustHint, fmt.Sprintf("the server does not say what stands at entry %d of its log", asked.GetEntries()))
	default:
		err = x.a.executor.Meet(&head, st.Place.Hash)
	}
	x.follows(err)
}

// follow takes a later head of the session, where a message has one. It is called
// in the order of the messages.
func (x *session) follow(signed *wire.SignedHead) {
	if x.a.unbound || signed == nil {
		return
	}
	head, _, err := x.opened(signed)
	if err == nil {
		err = x.a.executor.Follow(head)
	}
	x.follows(err)
}

// opened verifies a head. One that cannot be believed is one of a server that is
// not obeyed.
func (x *session) opened(signed *wire.SignedHead) (execute.LogHead, loghead.Statement, error) {
	st, err := x.statement(signed)
	if err == nil && st.Fleet != x.a.fleet {
		err = fmt.Errorf("it is of fleet %s", st.Fleet)
	}
	if err != nil {
		return execute.LogHead{}, st, x.a.executor.Distrust(distrustHint, "the head that the server shows of its log cannot be believed: "+err.Error())
	}
	return execute.LogHead{Epoch: st.Epoch, Entries: st.Entries, Hash: st.Hash, Note: string(signed.GetNote()), Certificate: signed.GetCertificate()}, st, nil
}

func (x *session) statement(signed *wire.SignedHead) (loghead.Statement, error) {
	if x.verifier == nil || !bytes.Equal(x.certificate, signed.GetCertificate()) {
		v, err := x.a.identity.Load().ServerNotes(signed.GetCertificate(), x.a.o.Machine.Clock.Wall())
		if err != nil {
			return loghead.Statement{}, err
		}
		x.verifier, x.certificate = v, signed.GetCertificate()
	}
	return loghead.Open(signed.GetNote(), x.verifier)
}

// verifying is who signed the last head of a session: the same as a rule.
type verifying struct {
	verifier    note.Verifier
	certificate []byte
}

// follows tells the server, and once the log, that this agent takes its steps (nil)
// or why not.
func (x *session) follows(err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	if why != x.refuses {
		x.refuses = why
		x.push(func(time.Time) *wire.SessionRequest {
			return &wire.SessionRequest{What: &wire.SessionRequest_LogState{LogState: &wire.LogState{Refused: why}}}
		})
	}
	if why == x.a.refuses {
		return
	}
	x.a.refuses = why
	if why != "" {
		x.a.o.Log.Error("this server is not obeyed: the machine is observed, and nothing is done", "server", x.server, "why", why)
		return
	}
	x.a.o.Log.Info("the server shows the log of decisions that this agent has seen: it is obeyed again", "server", x.server)
}
