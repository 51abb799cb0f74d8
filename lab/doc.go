// Package lab boots real Debian hosts on one Linux machine, breaks them on purpose, and leaves nothing behind.
//
// A lab is N hosts. Each one is a systemd-nspawn container on an overlay of one shared, read-only Debian image, with its
// own systemd, journal, boot id, address, cgroup and power switch. The hosts of a lab share a bridge in a network
// namespace of their own; that namespace has no way out: no default route, no link to the machine outside.
//
// It is used by tests, drills and people (see cmd/lab). It is not a product feature, not a container runtime, and no
// security boundary: a host has CAP_SYS_ADMIN and can reach every loop device of the machine.
//
// # How it ends
//
// Everything that a lab runs or mounts lives in a PID, mount and network namespace whose first process (the anchor) is
// a cat that reads from a pipe held by the owner alone. When the owner ends, however it ends, the pipe closes, the anchor
// ends, and the kernel kills every process of the lab, drops its mounts and its network, and lets go of its loop devices.
// What the kernel cannot drop by itself, the lab's folder, its empty cgroups and a blackhole route, is removed by the
// next [Sweep]: a lab is dead when the lock in its folder is free.
//
// # Invariants
//
//   - The lab touches nothing outside its own folder, namespaces, cgroup subtree and one blackhole route of its prefix.
//   - The image is never written after it was built; hosts write to their own overlay.
//   - A host's files are only ever changed through its merged root, never through the overlay's upper directory.
//   - A path given for a host is resolved inside that host's root: a symbolic link cannot lead out of it.
//
// # What it cannot show
//
// All hosts share one kernel: one clock, one dmesg, no watchdog, no module loading, no lost page cache at a power cut
// (what was written before [Host.PowerOff] is there after [Host.Boot], synced or not). Limits on units inside a host
// (MemoryMax= and so on) have no effect on a machine with the hybrid cgroup layout.
package lab
