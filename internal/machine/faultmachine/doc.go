// Package faultmachine makes a machine fail on purpose: it stands in front of the
// ports of package machine and injects errors, delays, hangs and lost answers by
// rules.
//
// Rules are values with a text form, so that a test or a drill can be read, sent
// and replayed:
//
//	files.write /etc/x: ENOSPC
//	services.start etcd.service: hang
//	files.*: EIO after 3
//	filesystems.usage /nfs/**: delay 2s times 5
//	services.stop etcd.service: lost
//
// A rule is an operation (see Operations; * as in path.Match), what it is done to
// (a path, unit, program, mount point or process; * as in path.Match, /** for all
// below; none for everything), and an effect: an errno, "unsupported", "hang"
// (until the context ends), "delay" with a duration, or "lost" (it is done, and
// the answer is an error). "after N" lets the first N pass, "times N" ends the
// rule after N. The first rule that matches decides.
//
// It breaks nothing for real; a hang here is one that respects its context, since
// every port promises that. Invariants: without rules it changes nothing;
// printing a rule and parsing it again gives the same rule; rules fire the same
// way for the same sequence of calls.
package faultmachine
