// Package fanout measures "fettle run" over SSH beside pdsh, clush and ansible: the
// same command on the same sshds on the loopback, all healthy, and with one of them
// stopped (SIGSTOP: its kernel accepts connections, and nobody answers).
//
//	go test -tags compare -run '^$' -bench . -benchtime 5x ./bench/fanout
//
// It needs Debian's openssh-server, openssh-client, pdsh, clustershell and
// ansible-core. It is no test: nothing here says what is fast enough. Each tool runs
// as it comes, with its own defaults for time-outs and for how many hosts at once;
// all have the same ssh configuration, keys and list of known hosts.
//
// Metrics, besides the time that a whole run took: healthy-ms is when the last
// healthy host's answer was printed, named-ms when the stopped host was named, and
// cpu-ms what the tool and its children used.
package fanout
