// Package sshrun reaches hosts over SSH, for package fanout: with the user's own
// ssh configuration, keys, agent and list of known hosts, so that what "ssh HOST"
// reaches is reached here in the same way.
//
// It is no ssh client: no terminal, no forwarding, no password, no command before
// or after. What a configuration asks for that would change where or how one
// connects, and that is not done here, is an error that names file and line, never
// passed over (see settings.go for the three lists).
//
// # Invariants
//
//   - A host's key is checked against the lists of known hosts, always. A key that
//     is not there, or is another one, is refused with what to do; nothing is added
//     to a list, whatever StrictHostKeyChecking says.
//   - A command is sent once, on one connection; a connection that could not be
//     made is not tried again.
//   - A command's arguments arrive as they were given: each is quoted for the
//     login shell that sshd hands them to.
//   - A host that stops to answer at any stage holds nothing up: when the context
//     ends, the connection is closed, and Run returns.
//   - Private keys stay in memory as long as the Runner; they are in no error.
//
// Sources: ssh_config(5), sshd(8) on the format of known_hosts, RFC 4252 to 4254,
// OpenSSH's PROTOCOL on keepalive@openssh.com.
package sshrun
