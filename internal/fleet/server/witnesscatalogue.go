package server

import (
	"time"

	"fettle/internal/fettle"
)

// witnessExpiry is when a verdict that was not said anew is no longer known.
const witnessExpiry = 4 * witnessEvery

func witnessSpec() fettle.ProbeSpec {
	return fettle.ProbeSpec{
		Name: WitnessProbe, Kind: fettle.KindHost, Interval: witnessEvery, Timeout: time.Second, Told: true,
		Facts: []fettle.FactSpec{
			{Name: "life", Type: fettle.StringFact, Doc: "alive, dead, hung, agent_dead or cannot_tell"},
			{Name: "dead", Type: fettle.BoolFact, Doc: "nothing of it answers, by two kinds of witness at least; absent where nobody can tell, as the next two"},
			{Name: "hung", Type: fettle.BoolFact, Doc: "its kernel answers, and nothing that runs on it does"},
			{Name: "agent_dead", Type: fettle.BoolFact, Doc: "its kernel answers, and its agent is gone"},
			{Name: "why", Type: fettle.StringFact, Doc: "what decided"},
			{Name: "ill", Type: fettle.BoolFact, Doc: "as an observer: most of what it looks at seems dead to it"},
			{Name: "ill_why", Type: fettle.StringFact, Doc: "why, where it is ill"},
			{Name: "label", Type: fettle.StringFact, Doc: "the machine's host name"},
		},
		Doc: "Judged from what the agents' gossip has seen first-hand, the sessions, the server's own questions to the kernel, and the peers of the services there.",
	}
}

func sightSpec() fettle.ProbeSpec {
	return fettle.ProbeSpec{
		Name: SightProbe, Kind: KindServer, Interval: witnessEvery, Timeout: time.Second, Told: true,
		Facts: []fettle.FactSpec{
			{Name: "ill", Type: fettle.BoolFact, Doc: "most of the agents' streams have fallen silent"},
			{Name: "why", Type: fettle.StringFact, Doc: "how many"},
		},
		Doc: "The server that leads, about itself.",
	}
}

// witnessConditions are what follows from the verdicts. None is mended: a dead host has no
// hands, and that it is dead is no proof that it stopped writing (S4).
func witnessConditions() []fettle.ConditionSpec {
	lost := func(s fettle.Surely) []fettle.EffectOn {
		// The session of a silent host ends after four intervals, and agent_lost has a delay.
		return []fettle.EffectOn{{Condition: "fettle.agent_lost", Path: fettle.Self, Surely: s, Within: time.Minute}}
	}
	spec := func(c fettle.ConditionSpec) fettle.ConditionSpec {
		c.Scope, c.Probe, c.Expiry = fettle.ClusterScope, WitnessProbe, witnessExpiry
		if c.Kind == "" {
			c.Kind = fettle.KindHost
		}
		return c
	}
	judge := spec(fettle.ConditionSpec{
		Code: "fettle.server_ill", Title: "the server that leads sees most of the fleet gone: {why}", Kind: KindServer, Layer: fettle.Network, Severity: fettle.Critical,
		Raise: "self.ill", Delay: domainDelay, NotMended: "what is ill is the server's own view: look at its network, or stop it so that another one leads",
		Doc: "More than half of the agents' streams, of three or more, fell silent at this server. It takes no host for dead then. By hand: can this machine reach the others? fettle servers names those that could lead.",
	})
	judge.Probe = SightProbe
	return []fettle.ConditionSpec{
		spec(fettle.ConditionSpec{
			Code: "fettle.host_dead", Title: "{label} is dead: {why}", Layer: fettle.Hardware, Severity: fettle.Critical,
			// What it shares with others that went silent is known before (domainDelay).
			Raise: "self.dead", Delay: lostAfter, Effects: lost(fettle.Always),
			NotMended: "nobody has hands on a machine that does not answer: look at its power and console. It is not proven to have stopped, so nothing of it is taken over",
			Doc:       "Two kinds of witness at least hear nothing of it: its peers, the servers, the peers of its services. It may be cut off from all of them and run on. By hand: fettle hosts says who saw what; then its console.",
		}),
		spec(fettle.ConditionSpec{
			Code: "fettle.host_hung", Title: "{label} is hung: {why}", Layer: fettle.HostLayer, Severity: fettle.Critical,
			// A machine that is moved to another stands still for seconds and goes on.
			Raise: "self.hung", Delay: lostAfter, Effects: lost(fettle.Often),
			NotMended: "a machine on which nothing runs takes no steps: look at its console, and reset it if that says nothing",
			Doc:       "Its kernel takes connections, and nothing that runs there answers: memory or disk exhausted, a driver stuck, the machine paused. By hand: its console and its hypervisor.",
		}),
		spec(fettle.ConditionSpec{
			Code: "fettle.agent_dead", Title: "the agent on {label} is gone, the machine is there: {why}", Layer: fettle.HostLayer, Severity: fettle.Warning,
			// As long as agent_lost waits: an agent that is started anew is no fault.
			Raise: "self.agent_dead", Delay: lostAfter, Effects: lost(fettle.Always),
			NotMended: "without its agent there are no hands on the machine: systemctl status fettle-agent there",
			Doc:       "The machine's kernel answers, and says that no agent listens. By hand: systemctl status fettle-agent on the machine.",
		}),
		spec(fettle.ConditionSpec{
			Code: "fettle.observer_ill", Title: "{label} sees most of the others gone: {ill_why}", Layer: fettle.Network, Severity: fettle.Critical,
			// In the first seconds of a burst the few that were just looked at are most of all.
			Raise: "self.ill", Delay: lostAfter, NotMended: "what is ill is this machine's view of the others: look at its network and its load",
			Doc: "More than half of the three or more hosts that it watches over seem gone to it, so it is more likely ill than they are, and its word against them does not count. By hand: ip -s link, ping from there.",
		}),
		judge,
	}
}
