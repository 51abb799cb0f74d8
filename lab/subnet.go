package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
)

// prefix is the /24 of the lab with the given number: 10.82.<number>.0/24. The number is 0 to 255.
func prefix(number int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 82, byte(number), 0}), 24)
}

// address is the n-th address of a lab's prefix; hosts have 1 to MaxHosts, the bridge 254.
func address(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr().As4()
	a[3] = byte(n)
	return netip.AddrFrom4(a)
}

const bridgeNumber = 254

// freeNumber is the lowest lab number whose prefix overlaps none of the prefixes in use on the machine and which take
// accepts. It starts from start, so that labs that come and go do not reuse each other's addresses at once.
func freeNumber(start int, inUse []netip.Prefix, take func(int) (bool, error)) (int, error) {
	for i := range 256 {
		n := (start + i) % 256
		free := true
		for _, p := range inUse {
			free = free && !p.Overlaps(prefix(n))
		}
		if !free {
			continue
		}
		ok, err := take(n)
		if err != nil {
			return 0, err
		}
		if ok {
			return n, nil
		}
	}
	return 0, errors.New("lab: all 256 lab numbers are taken: run \"lab list\", then \"lab down\" or \"lab sweep\"")
}

// machinePrefixes are the networks that the machine's own interfaces are in.
func machinePrefixes() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() {
			out = append(out, p.Masked())
		}
	}
	return out, nil
}

// takeNumber reserves a lab number on this machine: the one that makes the cgroup folder has it, whatever folder its
// lab lives in. The reservation ends when the cgroup is removed.
func takeNumber(h hierarchies, start int) (int, error) {
	inUse, err := machinePrefixes()
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(filepath.Join(h.v2, cgroupTop), 0o755); err != nil {
		return 0, fmt.Errorf("lab: make the cgroup of all labs: %w", err)
	}
	return freeNumber(start, inUse, func(n int) (bool, error) {
		err := os.Mkdir(h.group(numberName(n)).v2(), 0o755)
		if errors.Is(err, os.ErrExist) {
			return false, nil
		}
		return err == nil, err
	})
}

func numberName(n int) string { return fmt.Sprintf("lab%d", n) }
