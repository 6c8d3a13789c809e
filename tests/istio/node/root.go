package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// process is a container as it is handed to the program that becomes it (Become): everything resolved,
// nothing left to ask.
type process struct {
	// Root is an empty folder that the container's file system is mounted on.
	Root string
	// Folders by their owners, then mounts in their order.
	Folders          map[string]int
	Mounts           []mount
	ReadOnly         bool
	Arguments        []string
	Environment      []string
	WorkingDirectory string
	User, Group      int
	Groups           []int
}

type mount struct {
	Source, Target string
	ReadOnly       bool
}

// machine is what programs that are not static need of the machine, and devices.
// (Not /usr/local, where images have their own.)
var machine = []string{"/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib64", "/usr/share", "/lib", "/lib64", "/bin", "/sbin", "/etc/ssl", "/etc/ld.so.cache",
	"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"}

// Become turns the calling process into the container that the file describes. It is called in a
// namespace of mounts and of processes of its own, and returns only errors.
func Become(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var wanted process
	if err := json.Unmarshal(text, &wanted); err != nil {
		return err
	}
	if err := wanted.build(); err != nil {
		return err
	}
	if err := wanted.enter(); err != nil {
		return err
	}
	program, err := wanted.program()
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", program, syscall.Exec(program, wanted.Arguments, wanted.Environment))
}

func (p *process) build() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := syscall.Mount("tmpfs", p.Root, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	for _, path := range machine {
		if err := p.borrow(path); err != nil {
			return err
		}
	}
	for folder, mode := range map[string]os.FileMode{"/proc": 0o555, "/run": 0o755, "/var": 0o755,
		"/tmp": 0o777 | os.ModeSticky, "/dev/shm": 0o777 | os.ModeSticky} {
		if err := os.MkdirAll(p.Root+folder, mode); err != nil {
			return err
		}
		if err := os.Chmod(p.Root+folder, mode); err != nil {
			return err
		}
	}
	if err := syscall.Mount("proc", p.Root+"/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	for folder, owner := range p.Folders {
		if err := os.MkdirAll(p.Root+folder, 0o755); err != nil {
			return err
		}
		if folder != "/" && owner != 0 {
			if err := os.Chown(p.Root+folder, owner, owner); err != nil {
				return err
			}
		}
	}
	for _, each := range p.Mounts {
		if err := bind(each.Source, p.Root+each.Target, each.ReadOnly); err != nil {
			return err
		}
	}
	if p.ReadOnly {
		if err := syscall.Mount("", p.Root, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
			return fmt.Errorf("read-only: %w", err)
		}
	}
	return nil
}

// borrow shows a path of the machine, a link as a link, and does without one that is not there.
func (p *process) borrow(path string) error {
	about, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if about.Mode()&os.ModeSymlink != 0 {
		to, err := os.Readlink(path)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(p.Root+path), 0o755)
		}
		if err != nil {
			return err
		}
		return os.Symlink(to, p.Root+path)
	}
	return bind(path, p.Root+path, !strings.HasPrefix(path, "/dev/"))
}

func bind(source, target string, readOnly bool) error {
	about, err := os.Stat(source)
	if err != nil {
		return err
	}
	if about.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		var file *os.File
		if file, err = os.OpenFile(target, os.O_CREATE, 0o644); err == nil {
			err = file.Close()
		}
	}
	if err != nil {
		return err
	}
	if err := syscall.Mount(source, target, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	if !readOnly {
		return nil
	}
	flags := uintptr(syscall.MS_BIND | syscall.MS_REMOUNT | syscall.MS_RDONLY)
	if err := syscall.Mount("", target, "", flags, ""); err != nil {
		return fmt.Errorf("mount %s read-only: %w", target, err)
	}
	return nil
}

func (p *process) enter() error {
	if err := syscall.Chroot(p.Root); err != nil {
		return err
	}
	folder := p.WorkingDirectory
	if folder == "" {
		folder = "/"
	}
	if err := os.Chdir(folder); err != nil {
		return err
	}
	if err := syscall.Setgroups(p.Groups); err != nil {
		return err
	}
	if err := syscall.Setgid(p.Group); err != nil {
		return err
	}
	return syscall.Setuid(p.User)
}

func (p *process) program() (string, error) {
	if len(p.Arguments) == 0 {
		return "", errors.New("neither the container nor its image says what to run")
	}
	program := p.Arguments[0]
	if filepath.IsAbs(program) {
		return program, nil
	}
	for _, folder := range []string{"/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin"} {
		if _, err := os.Stat(filepath.Join(folder, program)); err == nil {
			return filepath.Join(folder, program), nil
		}
	}
	return "", fmt.Errorf("there is no program %s", program)
}
