// Package linuxmachine is the real Linux machine behind the ports of package
// machine: files, commands, services through systemd's D-Bus interface, mounts,
// processes, and a clock that neither suspend nor a stepped wall clock upsets.
//
// It decides nothing and caches nothing that it reports. As an ordinary user, in
// a container or without systemd it does what it can and says what it could not:
// fs.ErrPermission, or an error of class fettle.Unsupported with a hint.
//
// Invariants: no shell; a call that the kernel does not answer (a hung mount, a
// process that cannot be killed) returns when its context ends and leaves at most
// a fixed number of goroutines behind, per mount point; a symbolic link is
// followed for reading and never for writing; what was written is on the disk
// when the call returns; a signal reaches the process that was meant or none.
// Package units and systemd's own documentation (org.freedesktop.systemd1(5),
// systemctl(1)) name states and results.
package linuxmachine
