package storetest

import (
	"testing"
	"time"

	"fettle/internal/fettle"
	"fettle/internal/judge/guard"
	"fettle/internal/loop"
)

// windows of maintenance are kept as a whole, until others are.
func windows(t *testing.T, open Open) {
	s := load(t, open)
	list := []guard.Window{{ID: "w1", By: "ann", Hosts: []fettle.Subject{fettle.HostSubject("h")}, From: at, Until: at.Add(time.Hour), Every: 24 * time.Hour}}
	s.commit(loop.Txn{Windows: &list})
	s.commit(loop.Txn{Log: []loop.Entry{Entry("1")}})
	s = s.again(open)
	equal(t, "windows", s.state.Windows, list)
	s.commit(loop.Txn{Windows: &[]guard.Window{}})
	s = s.again(open)
	if len(s.state.Windows) > 0 {
		t.Errorf("windows that were taken away are there: %+v", s.state.Windows)
	}
}
