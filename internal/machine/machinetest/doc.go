// Package machinetest is what every implementation of the ports of package
// machine must do alike: one suite for Services, one for Files.
//
// memmachine, procservices, linuxmachine on a temporary directory and, in the
// lab, linuxmachine over a real systemd run the same tests, so that what is
// proven against the pretend machine holds on a real one. It proves behaviour,
// not speed, and it waits for events only.
package machinetest
