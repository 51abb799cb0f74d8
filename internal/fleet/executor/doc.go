// Package executor is the part of an agent that does steps: it holds the journal, the
// host's own rules of what may be done, and the freeze of the host, and believes
// nobody but the fleet's servers and people, by their signatures.
//
// It runs in the agent's process, or, as `fettle executor`, as root beside an agent
// that runs without root. Both are reached in the same way (Hands); between two
// processes it is a unix socket (Serve, Dial).
//
// # Who is believed what
//
// The agent's process speaks to the network and parses what comes: it is what an
// attacker gets first. It can withhold what it is to hand on, and lie about what it
// sees. It can have nothing done but what the standing permit of its host lets it: every
// other order is signed by a server of the fleet over
// the body's hash, a nonce that this executor made, and the time that may pass since
// that was made. A nonce carries a mark that only this process can make, so an order is
// for this host and this start of the executor, and not from long ago; the journal does
// a key once. The head of the server's log and the charter of an epoch are verified
// here too, against an authority of the executor's own (pki.Trust).
//
// A server can have nothing done either that needs a person: what the host's rules
// (ActionsFile) say so of, or by default what takes something away or is not of low
// risk, needs an approval signed by a person, of the very plan of which the step is
// one. The plan comes along, and its hash is what was signed.
//
// While there is no server nobody signs. Then an order names the standing permit, which a
// server has signed beforehand and which is kept here (Told), and act/execute judges the
// step by it (S12). Why nothing may be done alone at present, a freeze of the fleet or
// maintenance, is the agent's word.
//
// What people run ("fettle run") needs no server's signature, but the person's: over the
// program's hash, this host, and a nonce of this executor. The host's own list (RunFile)
// says whether that person may run it, and as which account.
//
// # Invariants
//
//   - In its own process nothing is done or recovered but a signed order, or a step under
//     the standing permit, by a deadline that is made here. In the
//     agent's an order without a signature is taken (Unsigned): that of a server of an
//     older version, which the agent has met over mutual TLS.
//   - Rules that cannot be read allow nothing. A freeze that cannot be told is one.
//   - What an approval is asked for is done under no other plan, no other incident, no
//     other step, and not after its end. A plan that was begun here in time is finished
//     until its finish. Taking back what was begun here needs none.
//   - A command is run only as its person signed it for this host, within a minute of the
//     nonce's making, once, by this start of the executor, and not while the host or, as
//     far as it was told, the fleet is frozen. A list that is not there, of no use, or that
//     somebody else than root can have written, lets nobody. A command ends with the
//     connection over which it came.
//   - A permit is taken when a server of the fleet has signed it for this host, and it is
//     not of before the one that is kept. It, the freezes, the windows of maintenance and
//     the journal are in the state folder, which the agent cannot write where the executor
//     is a process of its own.
//   - Whom it believes changes by the word of an authority that it believes only, and is kept
//     where the agent cannot write.
//   - The socket is for root and the agent's account only, asked of the kernel.
package executor
