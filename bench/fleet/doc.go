// Package fleet measures one server with many agents: how long they all take to connect;
// to return, all at once, when the server was killed and is back; a command's results
// from all; the server's memory, goroutines and processor time for each, when nothing
// happens; how long a fault takes from the host's word to the incident; and how often a
// person was called for nothing.
//
//	go test -tags compare -run TestGrows -v -timeout 60m ./bench/fleet
//	FETTLE_BENCH_AGENTS=100,1000 …   # how many; 100, 1,000, 3,000 and 10,000 where nothing is said
//	FETTLE_BENCH_BARS=1 …            # fail where it takes longer, or more, than it may
//	FETTLE_BENCH_FLEETS=DIR …        # keep the fleets there: to join ten thousand takes minutes
//	FETTLE_BENCH_PPROF=ADDRESS …     # where the server shows profiles
//	FETTLE_BENCH_LOG=FILE …          # where the server's log goes
//
// The server is the program itself, a process of its own, with its embedded store. The
// agents are in other processes, 5,000 in each: real sockets on the loopback, mutual TLS
// with a certificate of its own each, the wire's own messages, the observations and
// digests of a small machine, and an agent's pauses before it calls again. What they
// leave out is the machine below. Certificates are made before anything is measured.
//
// Memory is what the server has resident, less what one has that nobody ever joined;
// what the store keeps of the fleet is therefore in it.
//
// The processes share the cores, so the agents' work is in what is measured; and so is
// whatever else the machine does: the load is beside.
package fleet
