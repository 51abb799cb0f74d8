// Package moment marks the moments at which a test of real hosts stops a process: when
// something has just become durable and nothing has followed from it yet.
//
// In the program that is shipped a mark does nothing and nothing can make it do
// anything: what stops a process is in a file behind the build tag labkill, which only
// the lab's own binary is built with.
package moment
