package lab

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// recipe is part of an image's identity: count it up when customise or the installer's arguments change.
const recipe = 1

// buildDeadline bounds the making of an image; it takes half a minute to two minutes over a good link.
const buildDeadline = 20 * time.Minute

// Image is what a lab's hosts are made from: a Debian suite and the packages in it, with what they depend on. Every
// service and timer of every package is switched off in it; a host enables what it needs.
type Image struct {
	Suite    string
	Packages []string
}

// DefaultImage is Debian 12 with systemd, the usual tools, and etcd.
func DefaultImage() Image {
	return Image{Suite: "bookworm", Packages: []string{
		"systemd", "systemd-sysv", "dbus", "iproute2", "procps", "iputils-ping", "nftables", "iptables", "curl",
		"e2fsprogs", "xfsprogs", "util-linux", "etcd-server", "etcd-client", "openssh-server", "python3-minimal",
		"psmisc", "lsof", "jq", "less", "logrotate", "ca-certificates",
	}}
}

// With is the image with further Debian packages in it.
func (im Image) With(packages ...string) Image {
	im.Packages = slices.Concat(im.Packages, packages)
	return im
}

var packageForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]+$`)

func (im Image) check() error {
	if !packageForm.MatchString(im.Suite) {
		return fmt.Errorf("lab: image suite %q: give the code name of a Debian release", im.Suite)
	}
	for _, must := range []string{"systemd", "systemd-sysv", "dbus", "iproute2", "iptables"} {
		if !slices.Contains(im.Packages, must) {
			return fmt.Errorf("lab: image without the package %s: start from DefaultImage().With(…)", must)
		}
	}
	for _, p := range im.Packages {
		if !packageForm.MatchString(p) {
			return fmt.Errorf("lab: image package %q: not a Debian package name", p)
		}
	}
	return nil
}

// id names the image by all that it is made from, but for the versions that the archive serves on the day.
func (im Image) id() string {
	packages := slices.Compact(slices.Sorted(slices.Values(im.Packages)))
	sum := sha256.Sum256([]byte(fmt.Sprintf("recipe %d\n%s %s\n%s\n", recipe, im.Suite, runtime.GOARCH, strings.Join(packages, "\n"))))
	return "image-" + hex.EncodeToString(sum[:6])
}

// Ensure returns the folder of the image under cache (empty: as [Config] has it), and builds it first if it is not
// there: one to two minutes, with the archive that this machine's apt is configured for. Two callers, also in two
// processes, do not build the same image twice; a build that is cut short leaves nothing that looks finished.
func (im Image) Ensure(ctx context.Context, cache string, progress io.Writer) (string, error) {
	if err := im.check(); err != nil {
		return "", err
	}
	cache = cacheDir(cache)
	dir := filepath.Join(cache, im.id())
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	held, err := lock(ctx, dir+".lock", func() { fmt.Fprintf(progress, "lab: waiting for another process that builds %s\n", dir) })
	if err != nil {
		return "", err
	}
	defer held.Close()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	ctx, cancel := context.WithTimeout(ctx, buildDeadline)
	defer cancel()
	began := time.Now()
	fmt.Fprintf(progress, "lab: building %s (%s, %d packages): one to two minutes, once\n", dir, im.Suite, len(im.Packages))
	unfinished := dir + ".build"
	if err := removeDir(unfinished); err != nil {
		return "", err
	}
	err = im.build(ctx, unfinished, progress)
	if err == nil {
		err = customise(ctx, unfinished)
	}
	if err == nil {
		err = os.Rename(unfinished, dir)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("lab: build %s: %w", dir, err), removeDir(unfinished))
	}
	fmt.Fprintf(progress, "lab: built in %.0f s\n", time.Since(began).Seconds())
	return dir, nil
}

func (im Image) build(ctx context.Context, dir string, progress io.Writer) error {
	// The installer mounts /proc, /sys and /dev in dir. In a namespace of its own these cannot outlive it, however this
	// process ends, so that removing dir later can never reach into the machine's own /dev.
	argv := []string{"unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc",
		"mmdebstrap", "--mode=root", "--variant=minbase", "--include=" + strings.Join(im.Packages, ",")}
	if dump, err := run(ctx, nil, "apt-config", "dump"); err == nil {
		for _, o := range aptOptions(dump) {
			argv = append(argv, "--aptopt="+o)
		}
	}
	argv = append(argv, im.Suite, dir)
	mirrors := aptSources("/etc/apt", im.Suite)
	if m := os.Getenv(EnvMirror); m != "" {
		mirrors = []string{m}
	}
	argv = append(argv, mirrors...) // none: the installer's own default
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// A closed standard input is not the owner's death, so ask the kernel for that; ending too early by the death of a
	// mere thread costs a rebuild, nothing more.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.WaitDelay = 5 * time.Second
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var said strings.Builder
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		fmt.Fprintf(&said, "%s\n", lines.Text())
		if rest, ok := strings.CutPrefix(lines.Text(), "I: "); ok {
			fmt.Fprintf(progress, "lab:   %s\n", rest)
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("mmdebstrap: %w: %s", err, tail(said.String(), 1500))
	}
	return nil
}

// imageFiles are written into every image.
var imageFiles = map[string]string{
	// Everything off but the network: a fault must come from the test that makes it, not from a timer.
	"etc/systemd/system-preset/00-lab.preset": "enable systemd-networkd.service\nenable systemd-networkd-wait-online.service\ndisable *\n",
	// "Started" means "has its address", so that nobody needs to wait for the network.
	"etc/systemd/system/multi-user.target.d/lab.conf":                    "[Unit]\nWants=network-online.target\nAfter=network-online.target\n",
	"etc/systemd/system/systemd-networkd-wait-online.service.d/lab.conf": "[Service]\nExecStart=\nExecStart=/lib/systemd/systemd-networkd-wait-online --interface=host0 --timeout=20\n",
	"etc/systemd/journald.conf.d/lab.conf":                               "[Journal]\nStorage=persistent\n",
	// Host keys must not be shared by all hosts of all labs: they are made when sshd is first started.
	"etc/systemd/system/ssh.service.d/lab.conf": "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n",
	"etc/resolv.conf": "",
	"etc/machine-id":  "",
}

func customise(ctx context.Context, dir string) error {
	for name, text := range imageFiles {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "var/log/journal"), 0o2755); err != nil {
		return err
	}
	// What has only an init script is enabled by these links; what has a unit as well is not hurt by losing them.
	links, _ := filepath.Glob(filepath.Join(dir, "etc/rc[2-5].d/S*"))
	keys, _ := filepath.Glob(filepath.Join(dir, "etc/ssh/ssh_host_*"))
	for _, path := range append(links, keys...) {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	for _, argv := range [][]string{
		{"preset-all"},
		{"mask", "console-getty.service"}, // nobody types there, and it would write a prompt into the console log
		{"set-default", "multi-user.target"},
	} {
		if _, err := run(ctx, nil, append([]string{"chroot", dir, "systemctl", "--quiet"}, argv...)...); err != nil {
			return err
		}
	}
	return nil
}
