package warrant

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	programSchema = 1
	// maxArgv bounds the words of a program together, in bytes.
	maxArgv = 256 << 10
	// maxProgram bounds a program as it is sent: each byte may be six as JSON.
	maxProgram = 6*maxArgv + 1024
)

// Program is what a person wants to be run. No shell is involved; its folder is /, and
// its environment the minimal one of machine.Command.
type Program struct {
	Argv    []string
	Timeout time.Duration // it is ended after so long; 0: as long as a host lets one run
}

type programText struct {
	Schema  int      `json:"schema"`
	Argv    []string `json:"argv"`
	Timeout int64    `json:"timeout_ns,omitempty"`
}

// Body writes it down: the bytes that are signed, by hash. One that ParseProgram would
// not take is an error.
func (p Program) Body() ([]byte, error) {
	body, err := json.Marshal(programText{programSchema, p.Argv, int64(p.Timeout)})
	if err != nil {
		return nil, err
	}
	if back, err := ParseProgram(body); err != nil {
		return nil, err
	} else if len(back.Argv) != len(p.Argv) || strings.Join(back.Argv, "\x00") != strings.Join(p.Argv, "\x00") {
		return nil, errors.New("a word of the command is not UTF-8, and only such can be signed (run it over SSH)")
	}
	return body, nil
}

// ParseProgram reads what Body wrote. What a newer version says besides is refused: it
// might be what the person meant above all.
func ParseProgram(body []byte) (Program, error) {
	if len(body) > maxProgram {
		return Program{}, fmt.Errorf("the command has %d bytes, at most %d are taken", len(body), maxProgram)
	}
	var t programText
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return Program{}, fmt.Errorf("the command cannot be read: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Program{}, errors.New("the command cannot be read: something follows it")
	}
	if t.Schema != programSchema {
		return Program{}, fmt.Errorf("the command has schema %d; this version reads schema %d", t.Schema, programSchema)
	}
	size := 0
	for _, arg := range t.Argv {
		size += len(arg)
		if strings.ContainsRune(arg, 0) {
			return Program{}, errors.New("an argument of a program cannot have a zero byte in it")
		}
	}
	switch {
	case len(t.Argv) == 0 || t.Argv[0] == "":
		return Program{}, errors.New("there is no command")
	case size > maxArgv:
		return Program{}, fmt.Errorf("the command has more than %d bytes", maxArgv)
	case t.Timeout < 0:
		return Program{}, errors.New("the command's time limit is negative")
	}
	return Program{Argv: t.Argv, Timeout: time.Duration(t.Timeout)}, nil
}
