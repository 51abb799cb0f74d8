// Package units is the state machine of a service manager for services that are
// one main process each: systemd's states, results and jobs, as far as they can
// occur without its restart policies, timers and dependencies.
//
// It is what memmachine and procservices have in common; it starts no process
// itself but asks its Hands to, and is told by Events what became of that. It is
// not systemd: jobs have mode "replace" only, there is no ordering between
// units, and Restart= is never acted upon.
//
// Invariants: states, results and the order in which they are told are those of
// systemd 252 for Type=exec and Type=notify (the suite machinetest runs against
// both); watchers see every state, in order; an event of an earlier invocation
// changes nothing; every job ends when its unit does.
package units
