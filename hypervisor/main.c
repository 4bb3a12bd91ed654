// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-vmm: one virtual machine per process. Options, start, end, exit code.
 * The order matters: all that is opened is opened before the jail, the vCPUs
 * start after it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/options.h"
#include "common/str.h"
#include "common/util.h"
#include "hypervisor/control.h"
#include "hypervisor/jail.h"
#include "hypervisor/probe.h"
#include "hypervisor/pvrdma.h"
#include "hypervisor/snapshot.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/vm.h"

#define EXIT_USAGE 2
#define LIST_MAX 64

struct list {
	const char *values[LIST_MAX];
	unsigned n;
};

struct options {
	char *name, *kvm, *kernel, *cmdline, *console, *serial, *control, *events,
		*hugepages, *restore, *pvrdma;
	uint64_t cpus, mem;
	bool jail, rng, balloon, prealloc, shared, tune, probe;
	struct list initrds, disks, nets, vsocks, fss, pmems;
};

struct program {
	struct options opts;
	struct favo_vm *vm;
	struct favo_snapshot *snapshot;
	struct favo_control *control;
	struct favo_watch signal_watch;
	int events_fd, signal_fd;
	int64_t start_ns;
};

static int add_to(struct list *list, const char *value, struct favo_err *err)
{
	if (list->n == LIST_MAX)
		return favo_fail(err, E2BIG, "given more than %d times", LIST_MAX);
	list->values[list->n++] = value;
	return 0;
}

#define LIST_FN(member)                                                                  \
	static int add_##member(void *target, const char *value, struct favo_err *err)   \
	{                                                                                \
		return add_to(&((struct options *)target)->member, value, err);          \
	}
LIST_FN(initrds)
LIST_FN(disks)
LIST_FN(nets)
LIST_FN(vsocks)
LIST_FN(fss)
LIST_FN(pmems)

#define STR(name, arg, field, def, help)                                                 \
	FAVO_OPT_STR(name, arg, struct options, field, FAVO_FROM_CLI, def, help)

static const struct favo_opt table[] = {
	STR("name", "NAME", name, NULL, "name in status and logs"),
	STR("kvm", "PATH|fd=N", kvm, "/dev/kvm", "KVM device"),
	STR("kernel", "PATH|fd=N", kernel, NULL, "PVH ELF or bzImage"),
	FAVO_OPT_FN("initrd", "PATH|fd=N", add_initrds, FAVO_FROM_CLI,
		    "initial file system; several are concatenated in order"),
	STR("restore", "SPEC", restore, NULL,
	    "state=P|state-fd=N,memory=P|memory-fd=N[,verify]: go on from a snapshot"),
	STR("cmdline", "TEXT", cmdline, "", "kernel command line"),
	FAVO_OPT_BOOL("tune", "yes|no", struct options, tune, FAVO_FROM_CLI, "yes",
		      "put arguments that suit this machine before the command line"),
	FAVO_OPT_U64("cpus", "N", struct options, cpus, FAVO_FROM_CLI, "1",
		     "number of vCPUs"),
	FAVO_OPT_SIZE("mem", "SIZE", struct options, mem, FAVO_FROM_CLI, "256M",
		      "guest memory"),
	STR("hugepages", "auto|on|off", hugepages, "auto",
	    "back guest memory by huge pages"),
	FAVO_OPT_FLAG("prealloc", struct options, prealloc, FAVO_FROM_CLI,
		      "allocate all guest memory at start"),
	FAVO_OPT_FLAG("shared", struct options, shared, FAVO_FROM_CLI,
		      "make guest memory a memfd that other processes can map"),
	FAVO_OPT_FN("disk", "SPEC", add_disks, FAVO_FROM_CLI,
		    "path=P|fd=N[,ro][,overlay=P|overlay-fd=N][,id=S]"),
	FAVO_OPT_FN("pmem", "SPEC", add_pmems, FAVO_FROM_CLI,
		    "path=P|fd=N: image file as read-only persistent memory"),
	FAVO_OPT_FN("net", "SPEC", add_nets, FAVO_FROM_CLI,
		    "tap=NAME|fd=N[,vhost=N|auto|off][,mac=MAC][,model=virtio|vmxnet3]"),
	STR("pvrdma", "SPEC", pvrdma, NULL,
	    "hca-fd=N[,mac=MAC]: RDMA beside a network card of model vmxnet3"),
	FAVO_OPT_FN("vsock", "SPEC", add_vsocks, FAVO_FROM_CLI, "cid=N[,fd=N]"),
	FAVO_OPT_FN("fs", "SPEC", add_fss, FAVO_FROM_CLI,
		    "socket=P|fd=N,tag=NAME[,queues=N]: shared directory (virtiofsd)"),
	FAVO_OPT_FLAG("rng", struct options, rng, FAVO_FROM_CLI, "entropy device"),
	FAVO_OPT_FLAG("balloon", struct options, balloon, FAVO_FROM_CLI,
		      "give memory that the guest has free back to the host"),
	STR("console", "SPEC", console, NULL, "fd=N|stdio|file=P: virtio console (hvc0)"),
	STR("serial", "SPEC", serial, NULL,
	    "fd=N|stdio|file=P: output of a serial port (ttyS0)"),
	STR("control", "SPEC", control, NULL, "path=P|fd=N: control socket"),
	STR("events", "SPEC", events, NULL,
	    "fd=N|file=P: events, one JSON object a line"),
	FAVO_OPT_FLAG("jail", struct options, jail, FAVO_FROM_CLI,
		      "give up all access to the host before the guest starts"),
	FAVO_OPT_FLAG("probe", struct options, probe, FAVO_FROM_CLI,
		      "run a guest of a few bytes, tell whether it worked, and exit"),
};

/* Take over descriptor number text, or open a path. */
static int open_spec(const char *what, const char *spec, int flags, struct favo_err *err)
{
	uint64_t n;
	int fd;

	if (!strncmp(spec, "fd=", 3)) {
		if (favo_parse_u64(&n, spec + 3, 0, INT_MAX, err) < 0)
			return favo_wrap(err, -EINVAL, "--%s", what);
		if (fcntl((int)n, F_SETFD, FD_CLOEXEC) < 0)
			return favo_fail(err, errno, "--%s %s: %m", what, spec);
		return (int)n;
	}
	if (!strncmp(spec, "path=", 5) || !strncmp(spec, "file=", 5))
		spec += 5;
	fd = open(spec, flags | O_CLOEXEC | O_NOCTTY, 0600);
	return fd < 0 ? favo_fail(err, errno, "--%s: open %s: %m", what, spec) : fd;
}

static int open_output(const char *what, const char *spec, struct favo_err *err)
{
	if (!strcmp(spec, "stdio"))
		return fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	return open_spec(what, spec, O_WRONLY | O_CREAT | O_APPEND, err);
}

/* Events must not be lost to formatting: one write, no stdio. */
static void emit(struct program *p, json_t *event)
{
	favo_autofree char *text = event ? json_dumps(event, JSON_COMPACT) : NULL;
	size_t len;

	json_decref(event);
	if (!text || p->events_fd < 0)
		return;
	len = strlen(text);
	text[len++] = '\n';
	(void)!favo_write_all(p->events_fd, text, len, 1000, NULL);
}

static long long elapsed_ms(const struct program *p)
{
	return (favo_now_ns() - p->start_ns) / 1000000;
}

static void emit_exit(struct program *p, const char *reason, const char *detail)
{
	emit(p, json_pack("{s:s, s:s, s:s, s:I}", "event", "exit", "reason", reason,
			  "detail", detail, "t_ms", (json_int_t)elapsed_ms(p)));
}

/*
 * What suits this machine: a panic ends the VM and is told from a reboot
 * (platform.h); serial ports that are not there are not looked for. It stands
 * first, so that the user's own words win.
 */
static char *full_cmdline(const struct options *o)
{
	return favo_asprintf("%s%s%s", o->tune ? "panic=-1 reboot=panic_warm " : "",
			     o->tune && !o->serial ? "8250.nr_uarts=0 " : "", o->cmdline);
}

static int make_vm(struct program *p, struct favo_err *err)
{
	const struct options *o = &p->opts;
	struct favo_vm_opts v = {
		.kvm_fd = -1,
		.ncpus = (unsigned)FAVO_MIN(o->cpus, 1u << 16),
		.mem = {.size = o->mem,
			.prealloc = o->prealloc,
			.shared = o->shared || o->fss.n || o->pvrdma},
		.serial_fd = -1,
	};
	int ret;

	if (!strcmp(o->hugepages, "on"))
		v.mem.huge = FAVO_HUGE_ON;
	else if (!strcmp(o->hugepages, "off"))
		v.mem.huge = FAVO_HUGE_OFF;
	else if (strcmp(o->hugepages, "auto"))
		return favo_fail(err, EINVAL,
				 "--hugepages: \"%s\" is none of auto, on, off",
				 o->hugepages);
	if (p->snapshot) {
		v.ncpus = favo_snapshot_cpus(p->snapshot);
		v.mem.size = favo_snapshot_memory(p->snapshot);
		v.mem.file = favo_snapshot_memory_file(p->snapshot);
	}
	if (o->serial) {
		v.serial_fd = open_output("serial", o->serial, err);
		if (v.serial_fd < 0)
			return v.serial_fd;
	}
	v.kvm_fd = open_spec("kvm", o->kvm, O_RDWR, err);
	if (v.kvm_fd < 0)
		return v.kvm_fd;
	ret = favo_vm_new(&p->vm, &v, err);
	favo_close(&v.kvm_fd);
	return ret;
}

static int load_kernel(struct program *p, struct favo_err *err)
{
	const struct options *o = &p->opts;
	favo_autofree char *cmdline = full_cmdline(o);
	struct favo_vm_kernel k = {.cmdline = cmdline};
	int fds[LIST_MAX], ret = 0;
	unsigned i;

	if (!cmdline)
		return favo_fail(err, ENOMEM, "out of memory");
	if (!o->kernel)
		return favo_fail(err, EINVAL, "--kernel is missing");
	k.kernel_fd = open_spec("kernel", o->kernel, O_RDONLY, err);
	if (k.kernel_fd < 0)
		return k.kernel_fd;
	for (i = 0; ret == 0 && i < o->initrds.n; i++) {
		fds[i] = open_spec("initrd", o->initrds.values[i], O_RDONLY, err);
		if (fds[i] < 0)
			ret = fds[i];
		else
			k.ninitrds++;
	}
	k.initrd_fds = fds;
	ret = ret ? ret : favo_vm_load(p->vm, &k, err);
	for (i = 0; i < k.ninitrds; i++)
		close(fds[i]);
	close(k.kernel_fd);
	return ret;
}

static int add_all(struct favo_vm *vm, const char *what, const struct list *list,
		   int (*add)(struct favo_vm *, const char *, struct favo_err *),
		   struct favo_err *err)
{
	unsigned i;

	for (i = 0; i < list->n; i++) {
		int ret = add(vm, list->values[i], err);

		if (ret < 0)
			return favo_wrap(err, ret, "--%s %s", what, list->values[i]);
	}
	return 0;
}

static int add_devices(struct program *p, struct favo_err *err)
{
	const struct options *o = &p->opts;
	int ret = 0;

	/* The console first: it shows what the drivers of the others say. */
	if (o->console) {
		ret = favo_console_add(p->vm, o->console, err);
		if (ret < 0)
			return favo_wrap(err, ret, "--console %s", o->console);
	}
	ret = ret ? ret : add_all(p->vm, "disk", &o->disks, favo_disk_add, err);
	ret = ret ? ret : add_all(p->vm, "net", &o->nets, favo_net_add, err);
	if (ret == 0 && o->pvrdma) {
		ret = favo_pvrdma_add(p->vm, o->pvrdma, err);
		if (ret < 0)
			return favo_wrap(err, ret, "--pvrdma %s", o->pvrdma);
	}
	ret = ret ? ret : add_all(p->vm, "vsock", &o->vsocks, favo_vsock_add, err);
	ret = ret ? ret : add_all(p->vm, "fs", &o->fss, favo_fs_add, err);
	if (ret == 0 && o->rng)
		ret = favo_rng_add(p->vm, err);
	ret = ret ? ret : add_all(p->vm, "pmem", &o->pmems, favo_pmem_add, err);
	if (ret == 0 && o->balloon)
		ret = favo_balloon_add(p->vm, err);
	return ret;
}

static int add_control(struct program *p, struct favo_err *err)
{
	const char *spec = p->opts.control;
	int fd, ret;

	if (!spec)
		return 0;
	if (!strncmp(spec, "fd=", 3)) {
		fd = open_spec("control", spec, 0, err);
		if (fd < 0)
			return fd;
	} else {
		if (!strncmp(spec, "path=", 5))
			spec += 5;
		ret = favo_unix_listen(&fd, spec, 0600, err);
		if (ret < 0)
			return favo_wrap(err, ret, "--control");
	}
	return favo_control_new(&p->control, p->vm, p->opts.name, fd, err);
}

static void on_signal(struct favo_watch *w, uint32_t events)
{
	struct program *p = favo_container_of(w, struct program, signal_watch);
	struct signalfd_siginfo si;

	(void)events;
	if (read(p->signal_fd, &si, sizeof(si)) == (ssize_t)sizeof(si))
		favo_vm_end(p->vm, FAVO_END_STOPPED, "stopped by signal %u",
			    si.ssi_signo);
}

static int watch_signals(struct program *p, struct favo_err *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	p->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (p->signal_fd < 0)
		return favo_fail(err, errno, "signalfd: %m");
	return favo_watch_add(p->vm->loop, &p->signal_watch, p->signal_fd, EPOLLIN,
			      on_signal, err);
}

/* All threads exist: the last doors close. */
static int before_guest(void *arg, struct favo_err *err)
{
	struct program *p = arg;
	int ret = p->opts.jail ? favo_jail_filter(err) : 0;

	if (ret == 0)
		emit(p, json_pack("{s:s, s:I}", "event", "start", "t_ms",
				  (json_int_t)elapsed_ms(p)));
	return ret;
}

static int open_snapshot(struct program *p, struct favo_err *err)
{
	const struct options *o = &p->opts;
	int ret;

	if (!o->restore)
		return 0;
	if (o->kernel || o->initrds.n || *o->cmdline || o->serial)
		return favo_fail(err, EINVAL,
				 "--restore excludes --kernel, --initrd, --cmdline and "
				 "--serial");
	ret = favo_snapshot_open(&p->snapshot, o->restore, err);
	return ret < 0 ? favo_wrap(err, ret, "--restore") : 0;
}

/* From the snapshot, or the kernel's entry. Its files are not needed any more. */
static int load_state(struct program *p, struct favo_err *err)
{
	int ret;

	if (!p->snapshot)
		return load_kernel(p, err);
	ret = favo_snapshot_restore(p->vm, p->snapshot, err);
	favo_snapshot_free(p->snapshot);
	p->snapshot = NULL;
	return ret < 0 ? favo_wrap(err, ret, "--restore") : 0;
}

static int run(struct program *p, struct favo_err *err)
{
	int ret = open_snapshot(p, err);

	ret = ret ? ret : make_vm(p, err);
	ret = ret ? ret : add_devices(p, err);
	ret = ret ? ret : load_state(p, err);
	ret = ret ? ret : add_control(p, err);
	ret = ret ? ret : watch_signals(p, err);
	if (ret == 0 && p->opts.jail)
		ret = favo_jail_enter(err);
	if (ret < 0)
		return ret;
	return favo_vm_run(p->vm, before_guest, p, err);
}

static int finish(struct program *p, int ret, const struct favo_err *err)
{
	static const int codes[] = {
		[FAVO_END_NONE] = 12,  [FAVO_END_SHUTDOWN] = 0, [FAVO_END_STOPPED] = 0,
		[FAVO_END_RESET] = 10, [FAVO_END_PANIC] = 11,	[FAVO_END_ERROR] = 12,
	};
	int code;

	if (ret < 0) {
		favo_log(FAVO_ERROR, "%s", err->msg);
		emit_exit(p, "error", err->msg);
		code = ret == -EINVAL ? EXIT_USAGE : codes[FAVO_END_ERROR];
	} else {
		if (p->vm->end == FAVO_END_ERROR)
			favo_log(FAVO_ERROR, "%s", p->vm->end_detail);
		emit_exit(p, favo_end_name(p->vm->end), p->vm->end_detail);
		code = codes[p->vm->end];
	}
	favo_watch_del(&p->signal_watch);
	favo_control_free(p->control);
	favo_vm_free(p->vm);
	favo_snapshot_free(p->snapshot);
	favo_close(&p->signal_fd);
	favo_close(&p->events_fd);
	return code;
}

/* One line of JSON; what failed is the error. */
static int probe(const struct options *o, struct favo_err *err)
{
	favo_autoclose int fd = open_spec("kvm", o->kvm, O_RDWR, err);
	struct favo_probe p;
	int ret = fd < 0 ? fd : favo_probe_run(fd, &p, err);

	if (ret < 0)
		return fd < 0 ? ret : favo_wrap(err, ret, "%s", o->kvm);
	printf("{\"kvm\":%d,\"guest_us\":%lld,\"max_vcpus\":%u}\n", p.api,
	       (long long)p.took_us, p.max_vcpus);
	return 0;
}

int main(int argc, char **argv)
{
	struct program p = {.events_fd = -1, .signal_fd = -1, .start_ns = favo_now_ns()};
	const struct favo_opts opts = {
		.program = "favo-vmm",
		.synopsis = "--kernel FILE [OPTION]...",
		.about = "Runs one virtual machine on KVM.",
		.table = table,
		.n = FAVO_ARRAY_SIZE(table),
		.target = &p.opts,
	};
	struct favo_err err = {0};
	int first = 0, ret, code;

	favo_log_init("favo-vmm", FAVO_INFO, false, NULL);
	/* jansson would open /dev/urandom at its first object: not in the jail. */
	json_object_seed(0);
	ret = favo_opts_defaults(&opts, &err);
	ret = ret ? ret : favo_opts_cli(&opts, argc, argv, &first, &err);
	if (ret > 0)
		return 0;
	if (ret == 0 && first < argc)
		ret = favo_fail(&err, EINVAL, "unexpected argument \"%s\"", argv[first]);
	if (ret == 0 && p.opts.probe) {
		ret = probe(&p.opts, &err);
		if (ret < 0)
			favo_log(FAVO_ERROR, "%s", err.msg);
		favo_opts_fini(&opts);
		return ret < 0 ? 12 : 0;
	}
	if (ret == 0 && p.opts.events) {
		p.events_fd = open_output("events", p.opts.events, &err);
		ret = FAVO_MIN(p.events_fd, 0);
	}
	ret = ret ? ret : run(&p, &err);
	code = finish(&p, ret, &err);
	favo_opts_fini(&opts);
	return code;
}
