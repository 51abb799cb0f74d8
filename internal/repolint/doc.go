// Package repolint judges the repository itself: who may import whom, that the
// judge stays pure, that packages say what they are, that tests neither sleep
// nor skip, that documents point at things that exist. Its tests run the rules
// over the tree that they are part of, so `go test` is all that is needed.
//
// It is not a style checker (see .golangci.yml for those) and no part of the
// product: nothing imports it.
//
// What to read first: rooms.go is the table of who may import whom;
// forbidden.go is the list of strings that may stand nowhere; exceptions.txt is
// every exception, each with its reason; rules.go is the list of all rules.
//
// Invariants: a rule is a pure function from a Tree to findings, and reads
// neither disk nor clock. Every rule has fixtures under testdata, at least one
// of which it must find fault with: a rule that cannot fail is a defect. An
// exception that no longer excuses anything is itself a finding.
package repolint
