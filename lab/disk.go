package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is a block device of one host: a loop device of the machine over a sparse file in the lab's folder. It keeps its
// content over power cuts and boots of the host.
type Disk struct {
	Device string // the same path on the machine and in the host: "/dev/loop4"
	Image  string // the file on the machine that is its content

	host *Host
	once sync.Once
	dev  *os.File // open for as long as the disk is attached: the kernel detaches it when nobody has it open or mounted
	err  error
}

// loopTries bounds the search for a free loop device while other processes take them too.
const loopTries = 50

// AttachDisk gives the host a new, empty disk of that many bytes, a multiple of 512 from 1 MiB on. It appears in a
// running host at once, and in later boots from their start. It bears no file system: make one inside the host
// (mkfs.ext4 DEVICE) and mount it there. It goes when the lab is closed.
func (h *Host) AttachDisk(ctx context.Context, size int64) (*Disk, error) {
	if size < 1<<20 || size%512 != 0 {
		return nil, fmt.Errorf("disk of %d bytes for %s: give a multiple of 512, at least 1 MiB", size, h.name)
	}
	h.mu.Lock()
	h.execs++
	image := filepath.Join(h.dir, fmt.Sprintf("disk%d.img", h.execs))
	h.mu.Unlock()
	file, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("disk for %s: %w", h.name, err)
	}
	defer file.Close() // the loop device has its own hold on the file
	if err := file.Truncate(size); err != nil {
		return nil, errors.Join(fmt.Errorf("disk for %s: %w", h.name, err), os.Remove(image))
	}
	dev, err := attachLoop(ctx, file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("disk for %s: %w", h.name, err), os.Remove(image))
	}
	d := &Disk{Device: dev.Name(), Image: image, host: h, dev: dev}
	// Under the lock, so that a boot either finds the disk in the list or is far enough to be given the node.
	release, err := h.take(ctx)
	if err == nil {
		defer release()
		h.update(func() { h.disks = append(h.disks, d) })
		err = d.makeNode()
	}
	if err != nil {
		return nil, errors.Join(err, d.Detach(ctx))
	}
	return d, nil
}

// attachLoop binds file to a free loop device, to be let go of by the kernel with its last user.
func attachLoop(ctx context.Context, file *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		dev, err := openWhenThere(ctx, "/dev/loop"+strconv.Itoa(n))
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		copy(config.Info.File_name[:63], file.Name())
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &config)
		if err == nil {
			return dev, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody was faster
			return nil, fmt.Errorf("set up %s: %w", dev.Name(), err)
		}
	}
	return nil, fmt.Errorf("no free loop device in %d tries", loopTries)
}

// openWhenThere opens a device whose node devtmpfs or udev may be about to make.
func openWhenThere(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", path, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// makeNode puts the device into the /dev of a running host. A host that is off gets it from nspawn.
func (d *Disk) makeNode() error {
	h := d.host
	h.mu.Lock()
	running := h.boot != nil && h.boot.leader() != 0
	booting := h.boot != nil && !running
	h.mu.Unlock()
	if booting {
		return fmt.Errorf("disk for %s: it has only begun to boot: wait with WaitRunning", h.name)
	}
	if !running {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(d.dev.Fd()), &st); err != nil {
		return fmt.Errorf("look at %s: %w", d.Device, err)
	}
	root, err := h.root()
	if err != nil {
		return err
	}
	defer root.Close()
	dir, base, err := parentIn(root, d.Device)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Mknodat(int(dir.Fd()), base, unix.S_IFBLK|0o660, int(st.Rdev)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %s in %s: %w", d.Device, h.name, err)
	}
	return nil
}

// Disks are the disks that are attached to the host.
func (h *Host) Disks() []*Disk {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.disks)
}

// Detach pulls the disk out of the host and deletes its content. The kernel keeps the device for as long as something has
// it mounted or open: unmount it first, or the error says that it is still in use.
func (d *Disk) Detach(ctx context.Context) error {
	if d.host.Power() != Off {
		if err := d.host.Remove(d.Device); err != nil {
			return err
		}
	}
	if err := d.release(ctx); err != nil {
		return err
	}
	d.host.update(func() { d.host.disks = slices.DeleteFunc(d.host.disks, func(o *Disk) bool { return o == d }) })
	return os.Remove(d.Image)
}

// release lets go of the device and waits until the kernel has too.
func (d *Disk) release(ctx context.Context) error {
	d.once.Do(func() { d.err = d.dev.Close() })
	if d.err != nil {
		return d.err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		used, err := loopsUnder(d.Image)
		if err != nil || len(used) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("detach %s of %s: still in use: unmount it first: %w", d.Device, d.host.name, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond): // the kernel tells nobody
		}
	}
}

// TriggerError makes the ext4 file system on the disk, which must be mounted in the host, meet a fatal error, by the
// kernel's own switch for that: with errors=remount-ro it refuses every write from then on.
func (d *Disk) TriggerError() error {
	file := filepath.Join("/sys/fs/ext4", filepath.Base(d.Device), "trigger_fs_error")
	if err := os.WriteFile(file, []byte("1"), 0); err != nil {
		return fmt.Errorf("make the ext4 on %s of %s fail: is it mounted? %w", d.Device, d.host.name, err)
	}
	return nil
}

// loopsUnder are the machine's loop devices whose file is path or lies below it.
func loopsUnder(path string) ([]string, error) {
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // detached in between
		}
		backing := strings.TrimSuffix(strings.TrimSpace(string(data)), " (deleted)")
		if backing == path || strings.HasPrefix(backing, path+"/") {
			out = append(out, "/dev/"+filepath.Base(filepath.Dir(filepath.Dir(f))))
		}
	}
	return out, nil
}
