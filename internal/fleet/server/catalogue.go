package server

import (
	"slices"
	"time"

	"fettle/internal/act/probe"
	"fettle/internal/fettle"
)

// AgentProbe is the probe under which the server observes agents.
const AgentProbe = "fettle.agent"

// WitnessProbe is the probe under which the server says of hosts whether they live, from
// all witnesses together; SightProbe that by which it says whether it sees well itself.
const (
	WitnessProbe = "fettle.witness"
	SightProbe   = "fettle.sight"
)

// KindServer is the kind of a server, the observer of agents.
const KindServer = fettle.KindServer

const (
	// agentEvery is how often the server says anew which agents are connected.
	agentEvery = 5 * time.Second
	// lostAfter is how long an agent may be away before that is a fault: longer
	// than the agent's restart and a server's.
	lostAfter = 10 * time.Second
	// settledAfter is how long an agent may take to tell everything. After that it
	// is taken at its word: an adapter that cannot be opened must not keep all the
	// others from being mended.
	settledAfter = 30 * time.Second
)

// Catalogue is what the server itself observes: the agents.
func Catalogue() fettle.Catalogue {
	return fettle.Catalogue{
		Adapter: "fettle",
		Doc:     "Sees whether each machine's agent is connected, from several kinds of witness whether the machine lives, whether many that share something went silent at once, and whether Fettle's own store has room. Mends nothing: without an agent there are no hands on that machine. Never takes a silent agent for a dead machine, nor a dead machine for a fenced one.",
		Kinds: []fettle.KindSpec{
			{Kind: fettle.KindHost, Doc: "ID: a machine, by the identity minted when it joined"},
			{Kind: KindServer, Doc: "ID: a server of the fleet"},
			{Kind: fettle.KindRack, Doc: "ZONE/NAME, or NAME: a rack of the topology file"},
			{Kind: fettle.KindZone, Doc: "NAME: a zone of the topology file"},
			{Kind: fettle.KindSwitch, Doc: "NAME: a switch of the topology file"},
			{Kind: fettle.KindPower, Doc: "NAME: a power feed of the topology file"},
		},
		Probes: append([]fettle.ProbeSpec{{
			Name: AgentProbe, Kind: fettle.KindHost, Interval: agentEvery, Timeout: time.Second, Told: true,
			Facts: []fettle.FactSpec{
				{Name: "connected", Type: fettle.BoolFact, Doc: "the agent holds a session with this server"},
				{Name: "settled", Type: fettle.BoolFact, Doc: "while it is connected: it has told everything that it sees since it started"},
				{Name: "label", Type: fettle.StringFact, Doc: "the machine's host name"},
				{Name: "incarnation", Type: fettle.StringFact, Doc: "of the agent's process, while it is known"},
				{Name: "boot_id", Type: fettle.StringFact, Doc: "of the machine's last boot that is known"},
				{Name: "version", Type: fettle.StringFact, Doc: "of the agent's program"},
			},
			Doc: "Told by the session between agent and server.",
		}, witnessSpec(), sightSpec(), storeSpec(), roomSpec(), probe.SelfSpec()}, domainProbes()...),
		Conditions: slices.Concat(witnessConditions(), domainConditions(), storeConditions(), []fettle.ConditionSpec{{
			Code: "fettle.agent_lost", Title: "no contact with the agent on {label}",
			Kind: fettle.KindHost, Layer: fettle.HostLayer, Severity: fettle.Warning, Scope: fettle.ClusterScope,
			Probe: AgentProbe, Raise: "!self.connected", Delay: lostAfter, Expiry: 6 * agentEvery,
			NotMended: "without its agent there are no hands on the machine: look at the machine, its network and the agent's log",
			Doc:       "The machine's agent has no session with the server. The machine may be down, cut off, or only its agent. By hand: fettle hosts, then systemctl status fettle-agent on the machine.",
		}}),
	}
}
