// Package procservices is the Services port over child processes: a small
// service manager without root, systemd or files outside its own folder, for the
// demo and for tests that want real processes.
//
// It is not an init system: it restarts nothing by itself, orders nothing, limits
// nothing. States, results and jobs are those of package units.
//
// Invariants: every child is in a process group of its own and is killed by the
// kernel when this process dies, however it dies (PR_SET_PDEATHSIG, from a thread
// that lives as long as Run); what a main process leaves behind in its group is
// killed with it; an exit is told to watchers as soon as the kernel tells; a
// signal never reaches a process that is not the child it was meant for; Run
// returns when every child has ended.
package procservices
