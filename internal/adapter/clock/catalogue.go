package clock

import (
	"time"

	"fettle/internal/fettle"
)

// The conditions.
const (
	Off            fettle.Code = "clock.off"
	Unsynchronised fettle.Code = "clock.unsynchronised"
	SourceWrong    fettle.Code = "clock.source_wrong"
	SourceSilent   fettle.Code = "clock.source_silent"
)

const (
	trackingProbe = "clock.tracking"
	sourceProbe   = "clock.source"
)

const chooses = "which time sources are trusted is for a person to say: chronyc -n sources on the machine, then its configuration"

// Catalogue is what this adapter knows.
func Catalogue() fettle.Catalogue {
	return fettle.Catalogue{
		Adapter:  "clock",
		Doc:      "The clock of one machine and the time sources that it follows, as its chronyd sees them. Mends nothing: chronyd does, and whom it trusts is for a person to say.",
		Versions: "chrony 4.3",
		Kinds: []fettle.KindSpec{
			{Kind: fettle.KindHost, Doc: "ID: the machine whose clock it is"},
			{Kind: fettle.KindTimeSource, Doc: "ADDRESS: a server, or a reference clock by its name, that machines take the time from"},
		},
		Probes: []fettle.ProbeSpec{
			{
				Name: trackingProbe, Kind: fettle.KindHost, Interval: 15 * time.Second, Timeout: 3 * time.Second, Needs: "the command port of chronyd (on the machine itself)",
				Facts: []fettle.FactSpec{
					{Name: "synchronised", Type: fettle.BoolFact, Doc: "it follows a source; chronyd says so as long as the last one that it followed is believed"},
					{Name: "source", Type: fettle.StringFact, Doc: "the one that it follows now; empty where none is"},
					{Name: "stratum", Type: fettle.IntFact, Doc: "hops from a reference clock; 0 where none is followed"},
					{Name: "offset_us", Type: fettle.IntFact, Doc: "how far the clock is behind its source, in microseconds; negative: ahead"},
				},
				Doc: "chronyc -c -n tracking.",
			},
			{
				Name: sourceProbe, Kind: fettle.KindTimeSource, Interval: 15 * time.Second, Timeout: 3 * time.Second, Needs: "the command port of chronyd (on the machine itself)",
				Facts: []fettle.FactSpec{
					{Name: "state", Type: fettle.StringFact, Doc: "what this machine's chronyd thinks of it: followed, combined, spare, falseticker, variable, unusable"},
					{Name: "reach", Type: fettle.IntFact, Doc: "which of the last eight questions were answered, a bit each; 255 is all"},
					{Name: "stratum", Type: fettle.IntFact, Doc: "its own"},
					{Name: "offset_us", Type: fettle.IntFact, Doc: "how far this machine's clock was behind it at the last answer, in microseconds; negative: ahead"},
				},
				Doc: "chronyc -c -n sources, each by every machine that uses it.",
			},
		},
		Conditions: conditions(),
	}
}

func conditions() []fettle.ConditionSpec {
	return []fettle.ConditionSpec{
		{
			Code: Off, Title: "the clock is {offset_us} µs from its source", Kind: fettle.KindHost, Layer: fettle.HostLayer, Severity: fettle.Critical, Scope: fettle.HostScope,
			// A second is more than leases and certificates are made to bear, and a
			// thousand times what a source in the same building leaves.
			Probe: trackingProbe, Raise: "self.offset_us > 1000000 || self.offset_us < -1000000", Clear: "self.offset_us < 500000 && self.offset_us > -500000",
			Delay: 20 * time.Second, Expiry: time.Minute, NotMended: chooses,
			Doc: "What compares times between machines goes wrong: leases, certificates, logs. By hand: chronyc tracking.",
		},
		{
			Code: Unsynchronised, Title: "the clock follows no source", Kind: fettle.KindHost, Layer: fettle.HostLayer, Severity: fettle.Warning, Scope: fettle.HostScope,
			Probe: trackingProbe, Raise: "!self.synchronised", Delay: time.Minute, Expiry: time.Minute, NotMended: chooses,
			Effects: []fettle.EffectOn{{Condition: Off, Path: fettle.Self, Surely: fettle.Sometimes, Within: 7 * 24 * time.Hour}},
			Doc:     "It runs by itself and drifts, seconds a day at worst. By hand: chronyc -n sources.",
		},
		{
			Code: SourceWrong, Title: "the time source is wrong by the word of most that use it", Kind: fettle.KindTimeSource, Layer: fettle.Network, Severity: fettle.Critical,
			Scope: fettle.ClusterScope, Probe: sourceProbe, Observers: fettle.MostHosts, Raise: `self.state == "falseticker"`,
			Delay: 20 * time.Second, Expiry: time.Minute, NotMended: chooses,
			Effects: []fettle.EffectOn{
				{Condition: Off, Path: "<uses", Surely: fettle.Sometimes, Within: time.Hour},
				{Condition: Unsynchronised, Path: "<uses", Surely: fettle.Sometimes, Within: time.Hour},
			},
			Doc: "Most machines that can compare it with others do not believe it. Who has no other source follows it. By hand: chronyc -n sources on several machines.",
		},
		{
			Code: SourceSilent, Title: "the time source answers nobody", Kind: fettle.KindTimeSource, Layer: fettle.Network, Severity: fettle.Warning,
			Scope: fettle.ClusterScope, Probe: sourceProbe, Observers: fettle.MostHosts, Raise: "self.reach == 0", Clear: "self.reach > 0",
			Delay: 20 * time.Second, Expiry: time.Minute, NotMended: "look at the source, and at the way to it (UDP port 123)",
			Effects: []fettle.EffectOn{{Condition: Unsynchronised, Path: "<uses", Surely: fettle.Often, Within: 24 * time.Hour}},
			Doc:     "It has left the last eight questions of most machines unanswered. Who has another source does not notice. By hand: chronyc -n sources.",
		},
	}
}
