package incident_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"fettle/internal/fettle"
	"fettle/internal/judge/diagnose"
)

var update = flag.Bool("update", false, "write what comes out into the files of testdata")

func stories(t testing.TB) map[string]*storyFile {
	t.Helper()
	files, err := filepath.Glob("testdata/stories/*.yaml")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d stories, %v", len(files), err)
	}
	all := map[string]*storyFile{}
	for _, f := range files {
		all[strings.TrimSuffix(filepath.Base(f), ".yaml")] = readStory(t, f)
	}
	return all
}

// TestStories plays public incidents to the mind, from what was observed to what was
// done and left alone. Every rung of theirs is automatic: what is not touched was
// held back by the diagnosis or by a guard.
func TestStories(t *testing.T) {
	all := stories(t)
	for _, name := range sortedKeys(all) {
		s := all[name]
		t.Run(name, func(t *testing.T) {
			p := play(t, s, s.catalogues(t))
			if got := p.causes(); !slices.Equal(got, sortedTexts(s.Expect.Causes)) {
				t.Errorf("the causes are %q, want %q", got, s.Expect.Causes)
			}
			for _, in := range p.mind.Incidents() {
				if !in.State.Ended() && !slices.Contains(s.Expect.Causes, in.Cause.String()) {
					t.Errorf("the incident about %s does not end: %s (%s)", in.Cause, in.State, in.Why)
				}
			}
			if !slices.Equal(p.touched, s.Expect.Touched) {
				t.Errorf("touched %q, want %q", p.touched, s.Expect.Touched)
			}
			for _, look := range s.Expect.Asked {
				if !p.asked[look] {
					t.Errorf("%s was not asked before anything was touched", look)
				}
			}
			ok := len(p.calls) == len(s.Expect.Calls)
			for i := 0; ok && i < len(p.calls); i++ {
				ok = strings.Contains(p.calls[i], s.Expect.Calls[i])
			}
			if !ok {
				t.Errorf("called %q, want parts %q", p.calls, s.Expect.Calls)
			}
			got := p.explained()
			if again := play(t, s, s.catalogues(t)).explained(); again != got {
				t.Error("played again, it is another story")
			}
			scratch(t, p)
			file := "testdata/stories/" + name + ".txt"
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\n%s has another (go test -update rewrites it)", got, file)
			}
		})
	}
}

func sortedTexts(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return list
}

// scratch holds the diagnosis at the end of a story, to which it came step by step,
// against a fresh one.
func scratch(t *testing.T, p *told) {
	t.Helper()
	d, err := diagnose.New(p.mind.Catalogues(), diagnose.DefaultWeights())
	if err != nil {
		t.Fatal(err)
	}
	d.Load(p.mind.View(), p.now)
	if got, want := fmt.Sprintf("%+v", p.mind.Groups()), fmt.Sprintf("%+v", d.Groups()); got != want {
		t.Errorf("step by step:\n%s\nfrom scratch:\n%s", got, want)
	}
}

// TestStoriesRestOnKnowledge takes one causal edge after the other out of the stories'
// own catalogues: what follows must be another, unless the edge is marked idle.
func TestStoriesRestOnKnowledge(t *testing.T) {
	taken := 0
	for name, s := range stories(t) {
		gist := func(cats []fettle.Catalogue) string {
			p := play(t, s, cats)
			var causes []string
			for _, in := range p.mind.Incidents() {
				causes = append(causes, in.Cause.String())
			}
			return fmt.Sprint(causes, p.touched, p.calls)
		}
		whole := gist(s.catalogues(t))
		for i, c := range s.Conditions {
			for j, text := range append(slices.Clone(c.Effects), c.CausedBy...) {
				cats := s.catalogues(t)
				spec := &cats[0].Conditions[i]
				if k := j - len(c.Effects); k >= 0 {
					spec.CausedBy = slices.Delete(slices.Clone(spec.CausedBy), k, k+1)
				} else {
					spec.Effects = slices.Delete(slices.Clone(spec.Effects), j, j+1)
				}
				if same := gist(cats) == whole; same != strings.HasSuffix(text, " idle") {
					t.Errorf("%s: without %s %q all is the same: %v", name, c.Code, text, same)
				}
				taken++
			}
		}
	}
	if taken < 14 {
		t.Errorf("only %d edges in all stories", taken)
	}
}
