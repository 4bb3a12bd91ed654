// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ELF kernels with a PVH entry point: an ELF note of owner "Xen", type 18
 * (XEN_ELFNOTE_PHYS32_ENTRY), names the 32-bit address to jump to
 * (xen/include/public/elfnote.h, docs/misc/pvh). Segments go to their physical
 * addresses. Memory is fresh and zero, so nothing is cleared for .bss.
 */
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/boot.h"

#define NOTE_PHYS32_ENTRY 18
#define PHDRS_MAX 64
#define NOTES_MAX (64 << 10)
#define CMDLINE_MAX 2047 /* Linux COMMAND_LINE_SIZE on x86, less the NUL */

static int check_header(const Elf64_Ehdr *eh, struct favo_err *err)
{
	if (memcmp(eh->e_ident, ELFMAG, SELFMAG) || eh->e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh->e_ident[EI_DATA] != ELFDATA2LSB || eh->e_machine != EM_X86_64)
		return favo_fail(err, ENOEXEC, "kernel: not a 64-bit x86 ELF file");
	if (eh->e_phentsize != sizeof(Elf64_Phdr) || !eh->e_phnum ||
	    eh->e_phnum > PHDRS_MAX)
		return favo_fail(err, ENOEXEC, "kernel: bad ELF program headers");
	return 0;
}

static int load_segment(struct favo_kernel *k, struct favo_memory *mem, int fd,
			const Elf64_Phdr *ph, uint64_t file_size, struct favo_err *err)
{
	void *to;

	if (!ph->p_memsz)
		return 0;
	if (ph->p_filesz > ph->p_memsz || ph->p_offset > file_size ||
	    ph->p_filesz > file_size - ph->p_offset)
		return favo_fail(err, ENOEXEC, "kernel: ELF segment outside the file");
	to = favo_guest_ptr(mem, ph->p_paddr, ph->p_memsz);
	if (ph->p_paddr < FAVO_BOOT_KERNEL_MIN || !to)
		return favo_fail(err, ENOMEM,
				 "kernel: ELF segment at %#llx of %llu bytes does not "
				 "fit guest memory",
				 (unsigned long long)ph->p_paddr,
				 (unsigned long long)ph->p_memsz);
	k->end = FAVO_MAX(k->end, ph->p_paddr + ph->p_memsz);
	return ph->p_filesz ? favo_boot_read(fd, ph->p_offset, to, ph->p_filesz, err) : 0;
}

/* Look for the entry point among the notes; false when it is not there. */
static bool find_entry(const uint8_t *notes, size_t size, uint64_t *entry)
{
	size_t at = 0;

	while (size - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr nh;
		size_t name, desc;

		memcpy(&nh, notes + at, sizeof(nh));
		at += sizeof(nh);
		/* 32-bit figures, rounded in 64 bits: no wrap. */
		name = ((size_t)nh.n_namesz + 3) & ~(size_t)3;
		desc = ((size_t)nh.n_descsz + 3) & ~(size_t)3;
		if (name > size - at || desc > size - at - name)
			return false;
		if (nh.n_type == NOTE_PHYS32_ENTRY && nh.n_namesz == 4 &&
		    !memcmp(notes + at, "Xen", 4) &&
		    (nh.n_descsz == 4 || nh.n_descsz == 8)) {
			*entry = 0;
			memcpy(entry, notes + at + name, nh.n_descsz);
			return true;
		}
		at += name + desc;
	}
	return false;
}

static int read_notes(struct favo_kernel *k, int fd, const Elf64_Phdr *ph,
		      uint64_t file_size, bool *found, struct favo_err *err)
{
	favo_autofree uint8_t *notes = NULL;
	int ret;

	if (!ph->p_filesz || ph->p_filesz > NOTES_MAX || ph->p_offset > file_size ||
	    ph->p_filesz > file_size - ph->p_offset)
		return 0;
	notes = malloc(ph->p_filesz);
	if (!notes)
		return favo_fail(err, ENOMEM, "kernel: out of memory");
	ret = favo_boot_read(fd, ph->p_offset, notes, ph->p_filesz, err);
	if (ret == 0)
		*found = find_entry(notes, ph->p_filesz, &k->address);
	return ret;
}

int favo_elf_load(struct favo_kernel *out, struct favo_memory *mem, int fd,
		  uint64_t file_size, struct favo_err *err)
{
	struct favo_kernel k = {
		.entry = FAVO_ENTRY_PVH,
		.initrd_max = FAVO_GPA_HOLE_START - 1,
		.cmdline_max = CMDLINE_MAX,
	};
	Elf64_Phdr ph[PHDRS_MAX];
	bool found = false;
	Elf64_Ehdr eh;
	unsigned i;
	int ret;

	ret = favo_boot_read(fd, 0, &eh, sizeof(eh), err);
	ret = ret ? ret : check_header(&eh, err);
	if (ret == 0)
		ret = favo_boot_read(fd, eh.e_phoff, ph, eh.e_phnum * sizeof(ph[0]), err);
	for (i = 0; ret == 0 && i < eh.e_phnum; i++) {
		if (ph[i].p_type == PT_LOAD)
			ret = load_segment(&k, mem, fd, &ph[i], file_size, err);
		else if (ph[i].p_type == PT_NOTE && !found)
			ret = read_notes(&k, fd, &ph[i], file_size, &found, err);
	}
	if (ret < 0)
		return ret;
	if (!found)
		return favo_fail(
			err, ENOEXEC,
			"kernel: ELF file without PVH entry (Linux: CONFIG_PVH)");
	if (k.address < FAVO_BOOT_KERNEL_MIN || k.address >= k.end)
		return favo_fail(err, ENOEXEC, "kernel: PVH entry outside the kernel");
	*out = k;
	return 0;
}
