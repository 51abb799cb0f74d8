// Package systemd looks after the services of one machine: it is told by the
// service manager (systemd over D-Bus, or whatever implements
// machine.Services) when a unit fails, stops, loops or comes up, and can start,
// restart, stop, reload and reset it.
//
// It sees units that failed, that should run and do not, that restart in a loop
// and, where a health probe is configured, that are active but answer nothing.
//
// It never starts what a person stopped or masked: that is reported as a
// condition of its own, which explains what follows from it. It never edits unit
// files and never kills what the manager does not own.
//
// Tested with systemd 252 (Debian 12).
package systemd
