// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * State of a vCPU for snapshots: Linux Documentation/virt/kvm/api.rst, section
 * 4. The order of loading matters: the LAPIC needs the APIC base in the special
 * registers, the deadline of its timer needs its mode and the TSC.
 *
 * The TSC goes on from its saved value, and so does kvmclock (snapshot.c): the
 * guest sees no time pass between save and load. KVM checks what a state may
 * hold; here only sizes, and that MSRs are some of those that KVM lists.
 */
#include <endian.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/util.h"
#include "hypervisor/state.h"
#include "hypervisor/vcpu.h"
#include "hypervisor/vm.h"

#define MSR_TSC 0x10
#define MSR_TSC_DEADLINE 0x6e0
#define MSRS_MAX 1024
#define XSAVE_MAX (64U << 10)

struct msr_list {
	uint32_t n;
	uint32_t indices[MSRS_MAX];
};

/* struct kvm_msrs with one entry. */
struct one_msr {
	uint32_t nmsrs, pad;
	struct kvm_msr_entry entry;
};

_Static_assert(offsetof(struct one_msr, entry) == offsetof(struct kvm_msrs, entries),
	       "struct kvm_msrs with one entry");

static int call(const struct favo_vcpu *v, unsigned long request, const char *name,
		void *arg, struct favo_err *err)
{
	if (ioctl(v->fd, request, arg) < 0)
		return favo_fail(err, errno, "%s: %m", name);
	return 0;
}
#define CALL(v, request, arg, err) call(v, request, #request, arg, err)

static bool has_cap(const struct favo_vcpu *v, int cap)
{
	return ioctl(v->vm->kvm_fd, KVM_CHECK_EXTENSION, cap) > 0;
}

/* ---- MSRs ---------------------------------------------------------------- */

static int list_msrs(const struct favo_vcpu *v, struct msr_list *list,
		     struct favo_err *err)
{
	list->n = MSRS_MAX;
	if (ioctl(v->vm->kvm_fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
		return favo_fail(err, errno, "KVM_GET_MSR_INDEX_LIST: %m");
	return 0;
}

static bool get_msr(const struct favo_vcpu *v, uint32_t index, uint64_t *value)
{
	struct one_msr m = {.nmsrs = 1, .entry = {.index = index}};

	if (ioctl(v->fd, KVM_GET_MSRS, &m) != 1)
		return false;
	*value = m.entry.data;
	return true;
}

static bool set_msr(const struct favo_vcpu *v, uint32_t index, uint64_t value)
{
	struct one_msr m = {.nmsrs = 1, .entry = {.index = index, .data = value}};
	uint64_t now;

	if (ioctl(v->fd, KVM_SET_MSRS, &m) == 1)
		return true;
	/* Some that KVM lists can be read only: they must be what they were. */
	return get_msr(v, index, &now) && now == value;
}

static int save_msrs(const struct favo_vcpu *v, struct favo_state_out *out,
		     struct favo_err *err)
{
	favo_autofree struct msr_list *list = malloc(sizeof(*list));
	struct favo_state_out values = {0};
	uint32_t n = 0;
	int ret;

	if (!list)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = list_msrs(v, list, err);
	if (ret < 0)
		return ret;
	for (uint32_t i = 0; i < list->n; i++) {
		uint64_t value;

		/* Listed for the VM, absent for this vCPU's CPUID. */
		if (!get_msr(v, list->indices[i], &value))
			continue;
		favo_state_put_u32(&values, list->indices[i]);
		favo_state_put_u64(&values, value);
		n++;
	}
	favo_state_put_u32(out, n);
	favo_state_put(out, values.data, values.len);
	out->failed |= values.failed;
	favo_state_out_fini(&values);
	return 0;
}

static bool listed(const struct msr_list *list, uint32_t index)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (list->indices[i] == index)
			return true;
	return false;
}

static int load_msrs(const struct favo_vcpu *v, struct favo_state_in *in,
		     struct favo_err *err)
{
	favo_autofree struct msr_list *list = malloc(sizeof(*list));
	uint64_t deadline = 0;
	uint32_t n;
	int ret;

	if (!list)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = list_msrs(v, list, err);
	if (ret < 0)
		return ret;
	n = favo_state_get_u32(in);
	for (uint32_t i = 0; i < n && !in->failed; i++) {
		uint32_t index = favo_state_get_u32(in);
		uint64_t value = favo_state_get_u64(in);

		if (in->failed)
			break;
		if (!listed(list, index))
			return favo_fail(err, EINVAL, "this host's KVM has no MSR %#x",
					 index);
		if (index == MSR_TSC_DEADLINE)
			deadline = value;
		else if (!set_msr(v, index, value))
			return favo_fail(err, EINVAL,
					 "KVM refuses value %#llx of MSR %#x",
					 (unsigned long long)value, index);
	}
	if (deadline && !set_msr(v, MSR_TSC_DEADLINE, deadline))
		return favo_fail(err, EINVAL, "KVM refuses the timer's deadline");
	return 0;
}

/* ---- floating point and vector registers --------------------------------- */

static uint32_t xsave_size(const struct favo_vcpu *v)
{
	int size = ioctl(v->vm->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);

	return size > (int)sizeof(struct kvm_xsave) ? FAVO_MIN((uint32_t)size, XSAVE_MAX)
						    : (uint32_t)sizeof(struct kvm_xsave);
}

static int save_xsave(const struct favo_vcpu *v, struct favo_state_out *out,
		      struct favo_err *err)
{
	uint32_t size = xsave_size(v);
	favo_autofree void *area = calloc(1, size);
	int ret;

	if (!area)
		return favo_fail(err, ENOMEM, "out of memory");
	if (size > sizeof(struct kvm_xsave))
		ret = CALL(v, KVM_GET_XSAVE2, area, err);
	else
		ret = CALL(v, KVM_GET_XSAVE, area, err);
	favo_state_put_blob(out, area, size);
	return ret;
}

static int load_xsave(const struct favo_vcpu *v, struct favo_state_in *in,
		      struct favo_err *err)
{
	uint32_t size = xsave_size(v);
	favo_autofree void *area = malloc(size);

	if (!area)
		return favo_fail(err, ENOMEM, "out of memory");
	if (!favo_state_get_copy(in, area, size))
		return favo_fail(err, EINVAL,
				 "vector registers of another size than this host's %u",
				 size);
	return CALL(v, KVM_SET_XSAVE, area, err);
}

/* ---- all of it ----------------------------------------------------------- */

/* Leaves that tell the clock's frequency may differ, see load_tsc(). */
static bool tells_frequency(uint32_t function)
{
	return function == 0x15 || function == 0x16 || function == 0x40000010;
}

static int check_cpuid(const struct favo_vcpu *v, struct favo_state_in *in,
		       struct favo_err *err)
{
	const struct favo_cpuid *mine = v->cpuid;
	size_t len;
	const uint8_t *saved = favo_state_get_blob(in, &len);

	if (!saved || len != mine->nent * sizeof(mine->entries[0]))
		return favo_fail(err, EINVAL,
				 "was saved on a host with another CPU or kernel");
	for (uint32_t i = 0; i < mine->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &mine->entries[i];

		if (memcmp(e, saved + i * sizeof(*e), sizeof(*e)) != 0 &&
		    !tells_frequency(e->function))
			return favo_fail(err, EINVAL,
					 "was saved on a host with another CPU or kernel "
					 "(CPUID leaf %#x.%u differs)",
					 e->function, e->index);
	}
	return 0;
}

static int load_tsc(const struct favo_vcpu *v, uint32_t khz, struct favo_err *err)
{
	if (!khz || khz == v->vm->tsc_khz)
		return 0;
	if (ioctl(v->fd, KVM_SET_TSC_KHZ, (unsigned long)khz) < 0)
		return favo_fail(err, errno,
				 "this host cannot run a TSC of %u kHz (its own: %u)",
				 khz, v->vm->tsc_khz);
	return 0;
}

static int save_sregs(const struct favo_vcpu *v, struct favo_state_out *out,
		      struct favo_err *err)
{
	struct kvm_sregs2 s2 = {0};
	struct kvm_sregs s = {0};
	int ret;

	if (has_cap(v, KVM_CAP_SREGS2)) {
		ret = CALL(v, KVM_GET_SREGS2, &s2, err);
		favo_state_put_u8(out, 2);
		favo_state_put_blob(out, &s2, sizeof(s2));
	} else {
		ret = CALL(v, KVM_GET_SREGS, &s, err);
		favo_state_put_u8(out, 1);
		favo_state_put_blob(out, &s, sizeof(s));
	}
	return ret;
}

static int load_sregs(const struct favo_vcpu *v, struct favo_state_in *in,
		      struct favo_err *err)
{
	struct kvm_sregs2 s2;
	struct kvm_sregs s;

	switch (favo_state_get_u8(in)) {
	case 1:
		favo_state_get_copy(in, &s, sizeof(s));
		return in->failed ? 0 : CALL(v, KVM_SET_SREGS, &s, err);
	case 2:
		favo_state_get_copy(in, &s2, sizeof(s2));
		return in->failed ? 0 : CALL(v, KVM_SET_SREGS2, &s2, err);
	default:
		return favo_fail(err, EINVAL, "special registers of an unknown kind");
	}
}

int favo_vcpu_save(struct favo_vcpu *v, struct favo_state_out *out, struct favo_err *err)
{
	const struct favo_cpuid *c = v->cpuid;
	struct kvm_mp_state mp = {0};
	struct kvm_regs regs = {0};
	struct kvm_xcrs xcrs = {0};
	struct kvm_lapic_state lapic = {0};
	struct kvm_vcpu_events events = {0};
	struct kvm_debugregs debug = {0};
	int ret;

	favo_state_put_blob(out, c->entries, (uint32_t)(c->nent * sizeof(c->entries[0])));
	favo_state_put_u32(out, v->vm->tsc_khz);
	/* First: it settles what the others then show. */
	ret = CALL(v, KVM_GET_MP_STATE, &mp, err);
	favo_state_put_u32(out, mp.mp_state);
	ret = ret ? ret : CALL(v, KVM_GET_REGS, &regs, err);
	favo_state_put_blob(out, &regs, sizeof(regs));
	ret = ret ? ret : save_sregs(v, out, err);
	ret = ret ? ret : save_xsave(v, out, err);
	ret = ret ? ret : CALL(v, KVM_GET_XCRS, &xcrs, err);
	favo_state_put_blob(out, &xcrs, sizeof(xcrs));
	ret = ret ? ret : CALL(v, KVM_GET_DEBUGREGS, &debug, err);
	favo_state_put_blob(out, &debug, sizeof(debug));
	ret = ret ? ret : CALL(v, KVM_GET_LAPIC, &lapic, err);
	favo_state_put_blob(out, &lapic, sizeof(lapic));
	ret = ret ? ret : save_msrs(v, out, err);
	ret = ret ? ret : CALL(v, KVM_GET_VCPU_EVENTS, &events, err);
	favo_state_put_blob(out, &events, sizeof(events));
	return ret;
}

int favo_vcpu_load(struct favo_vcpu *v, struct favo_state_in *in, struct favo_err *err)
{
	struct kvm_mp_state mp;
	struct kvm_regs regs;
	struct kvm_xcrs xcrs;
	struct kvm_lapic_state lapic;
	struct kvm_vcpu_events events;
	struct kvm_debugregs debug;
	int ret = check_cpuid(v, in, err);

	ret = ret ? ret : load_tsc(v, favo_state_get_u32(in), err);
	if (ret < 0)
		return ret;
	mp.mp_state = favo_state_get_u32(in);
	favo_state_get_copy(in, &regs, sizeof(regs));
	ret = load_sregs(v, in, err);
	ret = ret ? ret : load_xsave(v, in, err);
	favo_state_get_copy(in, &xcrs, sizeof(xcrs));
	favo_state_get_copy(in, &debug, sizeof(debug));
	favo_state_get_copy(in, &lapic, sizeof(lapic));
	if (ret == 0 && in->failed)
		return favo_state_get_end(in, err);
	ret = ret ? ret : CALL(v, KVM_SET_MP_STATE, &mp, err);
	ret = ret ? ret : CALL(v, KVM_SET_REGS, &regs, err);
	/* A CPU without XSAVE has none. */
	if (ret == 0 && xcrs.nr_xcrs)
		ret = CALL(v, KVM_SET_XCRS, &xcrs, err);
	ret = ret ? ret : CALL(v, KVM_SET_DEBUGREGS, &debug, err);
	ret = ret ? ret : CALL(v, KVM_SET_LAPIC, &lapic, err);
	ret = ret ? ret : load_msrs(v, in, err);
	if (ret < 0)
		return ret;
	favo_state_get_copy(in, &events, sizeof(events));
	ret = favo_state_get_end(in, err);
	ret = ret ? ret : CALL(v, KVM_SET_VCPU_EVENTS, &events, err);
	/* Tells the guest's watchdogs that it stood still; none of them: EINVAL. */
	(void)ioctl(v->fd, KVM_KVMCLOCK_CTRL, 0);
	return ret;
}
