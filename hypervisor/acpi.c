// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ACPI 6.4, hardware-reduced: no PM1 block, no SCI, no legacy devices, so that
 * a guest probes none of them. Power button and soft off go through a Generic
 * Event Device and the sleep control register. FACS is not needed then.
 */
#include "hypervisor/acpi.h"

#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/aml.h"
#include "hypervisor/boot.h"
#include "hypervisor/platform.h"

#define OEM_ID "FAVO  "
#define OEM_TABLE_ID "FAVOVMM "
#define CREATOR_ID "FAVO"

struct header {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem_id[6], oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

struct rsdp {
	char signature[8];
	uint8_t checksum;
	char oem_id[6];
	uint8_t revision;
	uint32_t rsdt, length;
	uint64_t xsdt;
	uint8_t ext_checksum, reserved[3];
} __attribute__((packed));

struct gas {
	uint8_t space, width, offset, access;
	uint64_t address;
} __attribute__((packed));

/* Fixed ACPI Description Table, section 5.2.9; zero members are left unnamed. */
struct fadt {
	struct header h;
	uint8_t unused1[45 - 36];
	uint8_t preferred_profile;
	uint8_t unused2[109 - 46];
	uint16_t boot_arch;
	uint8_t unused3;
	uint32_t flags;
	struct gas reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor;
	uint64_t facs, dsdt;
	struct gas unused4[8];
	struct gas sleep_control, sleep_status;
	uint64_t hypervisor_id;
} __attribute__((packed));

_Static_assert(sizeof(struct fadt) == 276, "FADT revision 6");

#define BOOT_ARCH_NO_VGA 0x04
#define BOOT_ARCH_NO_RTC 0x20
#define FADT_WBINVD 0x1
#define FADT_RESET 0x400
#define FADT_HEADLESS 0x1000
#define FADT_HW_REDUCED 0x100000
#define GAS_IO 1
#define PROFILE_SERVER 4

struct tables {
	uint8_t *base;
	uint64_t gpa;
	size_t size, len;
	uint64_t list[8]; /* what the XSDT names */
	unsigned n;
};

static uint8_t checksum(const void *p, size_t len)
{
	const uint8_t *b = p;
	uint8_t sum = 0;

	while (len--)
		sum = (uint8_t)(sum + *b++);
	return (uint8_t)-sum;
}

static struct header make_header(const char *signature, uint8_t revision)
{
	struct header h = {
		.revision = revision, .oem_revision = 1, .creator_revision = 1};

	memcpy(h.signature, signature, 4);
	memcpy(h.oem_id, OEM_ID, 6);
	memcpy(h.oem_table_id, OEM_TABLE_ID, 8);
	memcpy(h.creator_id, CREATOR_ID, 4);
	return h;
}

/* Put len bytes of a finished table after the last; 0 when there is no room. */
static uint64_t append(struct tables *t, void *table, size_t len, bool listed)
{
	struct header *h = table;
	size_t at = (t->len + 15) & ~(size_t)15;

	if (at > t->size || len > t->size - at)
		return 0;
	h->length = (uint32_t)len;
	h->checksum = 0;
	h->checksum = checksum(table, len);
	memcpy(t->base + at, table, len);
	t->len = at + len;
	if (listed)
		t->list[t->n++] = t->gpa + at;
	return t->gpa + at;
}

static void put_pci_bridge(struct favo_aml *a, const struct favo_pci_windows *w)
{
	favo_aml_mark dev = favo_aml_device(a, "PCI0"), crs;

	favo_aml_def_name(a, "_HID");
	favo_aml_eisa_id(a, "PNP0A08");
	favo_aml_def_name(a, "_CID");
	favo_aml_eisa_id(a, "PNP0A03");
	favo_aml_def_name(a, "_UID");
	favo_aml_integer(a, 0);
	favo_aml_def_name(a, "_SEG");
	favo_aml_integer(a, 0);
	favo_aml_def_name(a, "_BBN");
	favo_aml_integer(a, 0);
	crs = favo_aml_crs_begin(a);
	favo_aml_crs_bus(a, 0, 0);
	favo_aml_crs_window32(a, (uint32_t)w->mem32_base, (uint32_t)w->mem32_size);
	favo_aml_crs_window64(a, w->mem64_base, w->mem64_size);
	favo_aml_crs_end(a, crs);
	favo_aml_close(a, dev);

	/* ECAM must be reserved by a device, or Linux does not trust MCFG. */
	dev = favo_aml_device(a, "ECAM");
	favo_aml_def_name(a, "_HID");
	favo_aml_eisa_id(a, "PNP0C02");
	favo_aml_def_name(a, "_UID");
	favo_aml_integer(a, 1);
	crs = favo_aml_crs_begin(a);
	favo_aml_crs_memory32(a, FAVO_GPA_ECAM, FAVO_GPA_ECAM_SIZE);
	favo_aml_crs_end(a, crs);
	favo_aml_close(a, dev);
}

static void put_events(struct favo_aml *a)
{
	enum {
		LOCAL0 = 0x60,
		OP_STORE = 0x70,
		OP_AND = 0x7b,
		OP_NOTIFY = 0x86,
		NONE = 0
	};
	favo_aml_mark dev = favo_aml_device(a, "PWRB"), crs, method, iff;

	favo_aml_def_name(a, "_HID");
	favo_aml_eisa_id(a, "PNP0C0C");
	favo_aml_close(a, dev);

	dev = favo_aml_device(a, "GED0");
	favo_aml_def_name(a, "_HID");
	favo_aml_string(a, "ACPI0013");
	favo_aml_def_name(a, "_UID");
	favo_aml_integer(a, 0);
	crs = favo_aml_crs_begin(a);
	favo_aml_crs_interrupt(a, FAVO_GSI_EVENTS);
	favo_aml_crs_end(a, crs);
	favo_aml_io_region(a, "EVTR", FAVO_PORT_EVENTS, 1);
	crs = favo_aml_field(a, "EVTR");
	favo_aml_field_unit(a, "EVTS", 8);
	favo_aml_close(a, crs);
	/* Local0 = EVTS; If (Local0 & 1) { Notify (PWRB, 0x80) } */
	method = favo_aml_method(a, "_EVT", 1, true);
	favo_aml_byte(a, OP_STORE);
	favo_aml_name(a, "EVTS");
	favo_aml_byte(a, LOCAL0);
	iff = favo_aml_if(a);
	favo_aml_byte(a, OP_AND);
	favo_aml_byte(a, LOCAL0);
	favo_aml_integer(a, FAVO_EVENT_POWER_BUTTON);
	favo_aml_byte(a, NONE);
	favo_aml_byte(a, OP_NOTIFY);
	favo_aml_name(a, "\\_SB_.PWRB");
	favo_aml_integer(a, 0x80);
	favo_aml_close(a, iff);
	favo_aml_close(a, method);
	favo_aml_close(a, dev);
}

static void put_legacy(struct favo_aml *a, bool serial)
{
	favo_aml_mark dev = favo_aml_device(a, "PEVT"), crs;

	favo_aml_def_name(a, "_HID");
	favo_aml_string(a, "QEMU0001"); /* the name that pvpanic drivers know */
	crs = favo_aml_crs_begin(a);
	favo_aml_crs_io(a, FAVO_PORT_PANIC, 1);
	favo_aml_crs_end(a, crs);
	favo_aml_close(a, dev);
	if (!serial)
		return;
	dev = favo_aml_device(a, "COM1");
	favo_aml_def_name(a, "_HID");
	favo_aml_eisa_id(a, "PNP0501");
	favo_aml_def_name(a, "_UID");
	favo_aml_integer(a, 1);
	crs = favo_aml_crs_begin(a);
	favo_aml_crs_io(a, FAVO_PORT_SERIAL, 8);
	favo_aml_crs_interrupt(a, FAVO_GSI_SERIAL);
	favo_aml_crs_end(a, crs);
	favo_aml_close(a, dev);
}

static uint64_t put_dsdt(struct tables *t, const struct favo_acpi *acpi)
{
	struct header h = make_header("DSDT", 2);
	uint8_t buf[2048];
	struct favo_aml a;
	favo_aml_mark m;
	unsigned i;

	favo_aml_init(&a, buf, sizeof(buf));
	favo_aml_bytes(&a, &h, sizeof(h));
	favo_aml_def_name(&a, "\\_S5_");
	m = favo_aml_package(&a, 4);
	favo_aml_integer(&a, FAVO_SLEEP_S5);
	for (i = 0; i < 3; i++)
		favo_aml_integer(&a, 0);
	favo_aml_close(&a, m);
	m = favo_aml_scope(&a, "\\_SB_");
	put_pci_bridge(&a, &acpi->windows);
	put_events(&a);
	put_legacy(&a, acpi->serial);
	favo_aml_close(&a, m);
	return favo_aml_ok(&a) ? append(t, buf, a.len, false) : 0;
}

static uint64_t put_fadt(struct tables *t, uint64_t dsdt)
{
	struct fadt f = {
		.h = make_header("FACP", 6),
		.preferred_profile = PROFILE_SERVER,
		.boot_arch = BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_RTC,
		.flags = FADT_WBINVD | FADT_RESET | FADT_HEADLESS | FADT_HW_REDUCED,
		.reset_reg = {GAS_IO, 8, 0, 1, FAVO_PORT_RESET},
		.reset_value = 6,
		.minor = 4,
		.dsdt = dsdt,
		.sleep_control = {GAS_IO, 8, 0, 1, FAVO_PORT_SLEEP},
		.sleep_status = {GAS_IO, 8, 0, 1, FAVO_PORT_SLEEP + 1},
	};

	memcpy(&f.hypervisor_id, "FAVOVMM", 8);
	return append(t, &f, sizeof(f), true);
}

static uint64_t put_madt(struct tables *t, const struct favo_acpi *acpi)
{
	struct {
		struct header h;
		uint32_t lapic, flags;
	} __attribute__((packed)) head = {make_header("APIC", 5), FAVO_GPA_LAPIC, 0};
	struct {
		uint8_t type, len, id, reserved;
		uint32_t address, gsi_base;
	} __attribute__((packed)) ioapic = {1, 12, 0, 0, FAVO_GPA_IOAPIC, 0};
	size_t max = sizeof(head) + sizeof(ioapic) + acpi->ncpus * 16ULL;
	favo_autofree uint8_t *buf = malloc(max);
	struct favo_aml a; /* only its buffer */
	unsigned i;

	if (!buf)
		return 0;
	favo_aml_init(&a, buf, max);
	favo_aml_bytes(&a, &head, sizeof(head));
	favo_aml_bytes(&a, &ioapic, sizeof(ioapic));
	for (i = 0; i < acpi->ncpus; i++) {
		uint32_t id = acpi->apic_ids[i];
		struct {
			uint8_t type, len, uid, id;
			uint32_t flags;
		} __attribute__((packed)) lapic = {0, 8, (uint8_t)i, (uint8_t)id, 1};
		struct {
			uint8_t type, len;
			uint16_t reserved;
			uint32_t id, flags, uid;
		} __attribute__((packed)) x2apic = {9, 16, 0, id, 1, i};

		if (id < 255)
			favo_aml_bytes(&a, &lapic, sizeof(lapic));
		else
			favo_aml_bytes(&a, &x2apic, sizeof(x2apic));
	}
	return favo_aml_ok(&a) ? append(t, buf, a.len, true) : 0;
}

static uint64_t put_mcfg(struct tables *t)
{
	struct {
		struct header h;
		uint64_t reserved, base;
		uint16_t segment;
		uint8_t first_bus, last_bus;
		uint32_t reserved2;
	} __attribute__((packed))
	m = {.h = make_header("MCFG", 1), .base = FAVO_GPA_ECAM};

	return append(t, &m, sizeof(m), true);
}

static uint64_t put_xsdt(struct tables *t)
{
	struct {
		struct header h;
		uint64_t list[8];
	} __attribute__((packed)) x = {.h = make_header("XSDT", 1)};

	memcpy(x.list, t->list, sizeof(x.list));
	return append(t, &x, sizeof(x.h) + t->n * sizeof(x.list[0]), false);
}

int favo_acpi_build(struct favo_memory *mem, const struct favo_acpi *acpi, uint64_t *rsdp,
		    struct favo_err *err)
{
	struct tables t = {
		.base = favo_guest_ptr(mem, FAVO_BOOT_ACPI, FAVO_BOOT_ACPI_MAX),
		.gpa = FAVO_BOOT_ACPI,
		.size = FAVO_BOOT_ACPI_MAX,
		.len = sizeof(struct rsdp),
	};
	struct rsdp r = {.signature = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '},
			 .oem_id = {'F', 'A', 'V', 'O', ' ', ' '},
			 .revision = 2,
			 .length = sizeof(r)};
	uint64_t dsdt;

	if (!t.base)
		return favo_fail(err, ENOMEM, "guest memory: too small for ACPI tables");
	dsdt = put_dsdt(&t, acpi);
	if (!dsdt || !put_fadt(&t, dsdt) || !put_madt(&t, acpi) || !put_mcfg(&t) ||
	    !(r.xsdt = put_xsdt(&t)))
		return favo_fail(err, ENOSPC, "ACPI: tables do not fit (%u vCPUs)",
				 acpi->ncpus);
	r.checksum = checksum(&r, 20);
	r.ext_checksum = checksum(&r, sizeof(r));
	memcpy(t.base, &r, sizeof(r));
	*rsdp = t.gpa;
	return 0;
}
