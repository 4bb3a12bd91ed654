/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block device, disk images and overlay files: by the test driver, and the disk
 * layer alone against a model in memory. Both I/O engines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/disk.h"
#include "virtio_testdrv.h"

#define HDR 0x40000
#define STATUS 0x40100
#define DATA 0x50000
#define SECTORS 2048
#define SIZE (SECTORS * 512)

struct blk_fixture {
	struct drv d;
	char base[32], overlay[32];
};

static int temp_file(char path[32], uint64_t size)
{
	int fd;

	memcpy(path, "/tmp/favo-blk-XXXXXX", 21);
	fd = mkstemp(path);
	assert_true(fd >= 0);
	for (uint64_t i = 0; i < size / 8; i++)
		assert_int_equal(pwrite(fd, &i, 8, (off_t)(i * 8)), 8);
	return fd;
}

static void start(struct blk_fixture *f, const char *more)
{
	struct favo_vm *vm;
	struct favo_err err = {0};
	char *spec = favo_asprintf("path=%s,id=disk0%s", f->base, more);

	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	drv_start(&f->d, vm);
	if (favo_disk_add(vm, spec, &err) < 0)
		fail_msg("%s", err.msg);
	free(spec);
	assert_true(drv_find(&f->d, VIRTIO_ID_BLOCK));
	assert_true(drv_init(&f->d, ~0ULL));
}

static int setup(void **state)
{
	struct blk_fixture *f = calloc(1, sizeof(*f));

	close(temp_file(f->base, SIZE));
	close(temp_file(f->overlay, 0));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct blk_fixture *f = *state;

	unlink(f->base);
	unlink(f->overlay);
	free(f);
	return 0;
}

/* One request; the status byte. */
static int request(struct blk_fixture *f, uint32_t type, uint64_t sector, uint32_t len)
{
	bool write = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;
	struct virtio_blk_outhdr hdr = {.type = type, .sector = sector};
	struct drv_seg segs[3] = {
		{HDR, sizeof(hdr), false}, {DATA, len, write}, {STATUS, 1, true}};
	uint8_t *status = drv_ptr(&f->d, STATUS);

	memcpy(drv_ptr(&f->d, HDR), &hdr, sizeof(hdr));
	*status = 0xee;
	if (len == 0)
		segs[1] = segs[2];
	if (drv_do(&f->d, 0, segs, len ? 3 : 2) < 0)
		return -1;
	return *status;
}

static int range_request(struct blk_fixture *f, uint32_t type, uint64_t sector,
			 uint32_t n, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes range = {
		.sector = sector,
		.num_sectors = n,
		.flags = flags,
	};

	memcpy(drv_ptr(&f->d, DATA), &range, sizeof(range));
	return request(f, type, 0, sizeof(range));
}

static void test_round_trip(void **state)
{
	static const char *const engines[] = {",io=uring", ",io=sync"};
	struct blk_fixture *f = *state;
	uint64_t *data, word;
	int fd = open(f->base, O_RDONLY | O_CLOEXEC);

	for (size_t e = 0; e < FAVO_ARRAY_SIZE(engines); e++) {
		start(f, engines[e]);
		data = drv_ptr(&f->d, DATA);
		assert_int_equal(request(f, VIRTIO_BLK_T_IN, 3, 4096), 0);
		for (uint64_t i = 0; i < 512; i++)
			assert_int_equal(data[i], 3 * 64 + i);
		data[0] = 0x1234 + e;
		data[511] = 0x5678;
		assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 20, 4096), 0);
		assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0), 0);
		assert_int_equal(pread(fd, &word, 8, 20 * 512), 8);
		assert_int_equal(word, 0x1234 + e);
		data[0] = 0;
		assert_int_equal(request(f, VIRTIO_BLK_T_IN, 20, 4096), 0);
		assert_int_equal(data[0], 0x1234 + e);
		assert_int_equal(request(f, VIRTIO_BLK_T_GET_ID, 0, 20), 0);
		assert_string_equal((char *)data, "disk0");
		assert_int_equal(request(f, VIRTIO_BLK_T_IN, SECTORS - 1, 512), 0);
		drv_stop(&f->d);
	}
	close(fd);
}

static void test_bad_requests(void **state)
{
	struct blk_fixture *f = *state;
	static const struct {
		uint32_t type;
		uint64_t sector;
		uint32_t len;
		int status;
	} rows[] = {
		{VIRTIO_BLK_T_IN, SECTORS, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, SECTORS - 1, 1024, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, ~0ULL, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, 1ULL << 55, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_OUT, (1ULL << 55) - 1, 512, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, 0, 511, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, 0, 1, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_IN, 0, 0, VIRTIO_BLK_S_OK},
		{VIRTIO_BLK_T_GET_ID, 0, 19, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_DISCARD, 0, 15, VIRTIO_BLK_S_IOERR},
		{VIRTIO_BLK_T_DISCARD, 0, 32, VIRTIO_BLK_S_IOERR},
		{2, 0, 512, VIRTIO_BLK_S_UNSUPP},
		{0xffffffff, 0, 512, VIRTIO_BLK_S_UNSUPP},
	};

	start(f, "");
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++)
		assert_int_equal(request(f, rows[i].type, rows[i].sector, rows[i].len),
				 rows[i].status);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, SECTORS, 1, 0),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, ~0ULL, 8, 0),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0xffffffff, 0),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 0, 8, 1),
			 VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 2),
			 VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 0, 0),
			 VIRTIO_BLK_S_OK);
	drv_stop(&f->d);
}

/* Requests that have no place for an answer break the queue. */
static void test_no_header_or_status(void **state)
{
	struct blk_fixture *f = *state;
	static const struct drv_seg rows[][2] = {
		{{HDR, 15, false}, {STATUS, 1, true}},
		{{HDR, 16, false}, {DATA, 512, false}},
		{{HDR, 16, true}, {DATA, 512, true}},
	};

	start(f, "");
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		drv_add(&f->d.q[0], rows[i], 2);
		drv_kick(&f->d, 0);
		for (int k = 0; k < 20000 && !(drv_status(&f->d) & 0x40); k++)
			usleep(100);
		assert_true(drv_status(&f->d) & 0x40);
		assert_true(drv_init(&f->d, ~0ULL));
	}
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512), 0);
	drv_stop(&f->d);
}

/* Section 2.7.4: no descriptor border means anything. */
static void test_any_layout(void **state)
{
	struct blk_fixture *f = *state;
	struct virtio_blk_outhdr hdr = {.type = VIRTIO_BLK_T_OUT, .sector = 5};
	struct drv_seg out[] = {{DATA, 3, false},
				{DATA + 3, 13 + 100, false},
				{DATA + 116, 412, false},
				{DATA + 0x1000, 1, true}};
	struct drv_seg in[] = {
		{HDR, 16, false}, {DATA, 500, true}, {DATA + 0x2000, 13, true}};
	uint8_t *p;

	start(f, "");
	p = drv_ptr(&f->d, DATA);
	memcpy(p, &hdr, sizeof(hdr));
	for (int i = 0; i < 512; i++)
		p[16 + i] = (uint8_t)(i * 7);
	assert_int_equal(drv_do(&f->d, 0, out, 4), 1);
	assert_int_equal(p[0x1000], 0);
	hdr.type = VIRTIO_BLK_T_IN;
	memcpy(drv_ptr(&f->d, HDR), &hdr, sizeof(hdr));
	assert_int_equal(drv_do(&f->d, 0, in, 3), 513);
	for (int i = 0; i < 512; i++)
		assert_int_equal(i < 500 ? p[i] : p[0x2000 + i - 500], (uint8_t)(i * 7));
	assert_int_equal(p[0x2000 + 12], 0);
	drv_stop(&f->d);
}

static void test_read_only(void **state)
{
	struct blk_fixture *f = *state;

	start(f, ",ro");
	assert_true(drv_offered(&f->d) & 1ULL << VIRTIO_BLK_F_RO);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 512), 0);
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 0, 8, 0),
			 VIRTIO_BLK_S_IOERR);
	assert_int_equal(range_request(f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 8, 0),
			 VIRTIO_BLK_S_IOERR);
	drv_stop(&f->d);
}

static void test_discard_and_zero(void **state)
{
	static const char *const engines[] = {",io=uring", ",io=sync"};
	struct blk_fixture *f = *state;
	uint64_t *data;

	for (size_t e = 0; e < FAVO_ARRAY_SIZE(engines); e++) {
		start(f, engines[e]);
		data = drv_ptr(&f->d, DATA);
		assert_int_equal(range_request(f, VIRTIO_BLK_T_WRITE_ZEROES, 17, 100, e),
				 0);
		assert_int_equal(request(f, VIRTIO_BLK_T_IN, 16, 102 * 512), 0);
		assert_int_equal(data[0], 16 * 64);
		for (int i = 64; i < 101 * 64; i++)
			assert_int_equal(data[i], 0);
		assert_int_equal(data[101 * 64], 117 * 64);
		assert_int_equal(range_request(f, VIRTIO_BLK_T_DISCARD, 200, 64, 0), 0);
		assert_int_equal(request(f, VIRTIO_BLK_T_IN, 199, 512), 0);
		assert_int_equal(data[0], 199 * 64);
		drv_stop(&f->d);
	}
}

/*
 * As many as the queue holds at once, and more rounds than request slots
 * (CVE-2016-5403: what is under way is bounded).
 */
static void test_many_in_flight(void **state)
{
	struct blk_fixture *f = *state;
	struct virtio_blk_outhdr *hdr;
	uint32_t id;

	start(f, "");
	hdr = drv_ptr(&f->d, HDR);
	for (unsigned round = 0; round < 40; round++) {
		for (unsigned i = 0; i < 5; i++) {
			struct drv_seg segs[] = {{HDR + 16 * i, 16, false},
						 {DATA + 4096 * i, 4096, true},
						 {STATUS + i, 1, true}};

			hdr[i] = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN,
							    .sector = 8 * (round + i)};
			drv_add(&f->d.q[0], segs, 3);
		}
		drv_kick(&f->d, 0);
		for (unsigned i = 0; i < 5; i++)
			assert_true(drv_wait(&f->d, 0, &id, NULL));
		for (unsigned i = 0; i < 5; i++)
			assert_int_equal(*(uint64_t *)drv_ptr(&f->d, DATA + 4096 * i),
					 8 * (round + i) * 64);
	}
	drv_stop(&f->d);
}

/* More queues than one: requests of all end where they came from. */
static void test_queues(void **state)
{
	struct blk_fixture *f = *state;
	struct virtio_blk_outhdr *hdr;
	uint32_t id, len;

	start(f, ",queues=4");
	assert_int_equal(f->d.nqueues, 4);
	assert_int_equal(drv_read(&f->d, f->d.device + 34, 2), 4);
	hdr = drv_ptr(&f->d, HDR);
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 12; i++) {
			struct drv_seg segs[] = {{HDR + 16 * i, 16, false},
						 {DATA + 4096 * i, 4096, true},
						 {STATUS + i, 1, true}};

			hdr[i] = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN,
							    .sector = 8 * (round + i)};
			drv_add(&f->d.q[i % 4], segs, 3);
			drv_kick(&f->d, i % 4);
		}
		for (unsigned i = 0; i < 12; i++) {
			assert_true(drv_wait(&f->d, i % 4, &id, &len));
			assert_int_equal(len, 4097);
		}
		for (unsigned i = 0; i < 12; i++)
			assert_int_equal(*(uint64_t *)drv_ptr(&f->d, DATA + 4096 * i),
					 8 * (round + i) * 64);
	}
	drv_stop(&f->d);
}

/*
 * Reset with requests under way: after status reads 0 no byte of the buffers
 * may change any more.
 */
static void test_reset_in_flight(void **state)
{
	struct blk_fixture *f = *state;
	struct virtio_blk_outhdr *hdr;
	uint8_t *data;

	start(f, "");
	hdr = drv_ptr(&f->d, HDR);
	data = drv_ptr(&f->d, DATA);
	for (unsigned round = 0; round < 200; round++) {
		for (unsigned i = 0; i < 5; i++) {
			struct drv_seg segs[] = {{HDR + 16 * i, 16, false},
						 {DATA + 0x8000 * i, 0x8000, true},
						 {STATUS + i, 1, true}};

			hdr[i] = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN,
							    .sector = 8 * i};
			drv_add(&f->d.q[0], segs, 3);
		}
		drv_kick(&f->d, 0);
		if (round & 1)
			usleep(round);
		assert_true(drv_reset(&f->d));
		memset(data, 0xc5, 5 * 0x8000);
		usleep(100);
		for (unsigned i = 0; i < 5 * 0x8000; i += 512)
			assert_int_equal(data[i], 0xc5);
		assert_true(drv_init(&f->d, ~0ULL));
	}
	drv_stop(&f->d);
}

static void test_overlay_device(void **state)
{
	struct blk_fixture *f = *state;
	char *more = favo_asprintf(",overlay=%s", f->overlay);
	uint64_t *data, word;
	int fd = open(f->base, O_RDONLY | O_CLOEXEC);

	start(f, more);
	data = drv_ptr(&f->d, DATA);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 1024), 0);
	data[0] = 77;
	assert_int_equal(request(f, VIRTIO_BLK_T_OUT, 1, 512), 0);
	assert_int_equal(request(f, VIRTIO_BLK_T_FLUSH, 0, 0), 0);
	drv_stop(&f->d);
	/* The next VM sees it, the base never did. */
	start(f, more);
	data = drv_ptr(&f->d, DATA);
	assert_int_equal(request(f, VIRTIO_BLK_T_IN, 0, 8192), 0);
	assert_int_equal(data[63], 63);
	assert_int_equal(data[64], 77);
	assert_int_equal(data[65], 1);
	assert_int_equal(data[128], 128);
	assert_int_equal(data[1023], 1023);
	assert_int_equal(pread(fd, &word, 8, 512), 8);
	assert_int_equal(word, 64);
	drv_stop(&f->d);
	free(more);
	close(fd);
}

/* ---- the disk layer against a model --------------------------------------- */

struct op {
	struct favo_disk_req req;
	struct iovec iov, scratch;
	uint8_t *buf;
	int left; /* counts down when it ended */
};

static void op_done(struct favo_disk_req *req, int result)
{
	struct op *op = favo_container_of(req, struct op, req);

	assert_int_equal(result, 0);
	op->left = 0;
}

static void submit(struct favo_disk *disk, struct op *op, enum favo_disk_op what,
		   uint64_t off, uint64_t len)
{
	op->req = (struct favo_disk_req){
		.op = what, .off = off, .len = len, .done = op_done};
	op->iov = (struct iovec){op->buf, len};
	op->req.data = &op->iov;
	op->req.ndata = 1;
	op->req.scratch = &op->scratch;
	op->left = 1;
	favo_disk_submit(disk, &op->req);
}

static void finish(struct favo_disk *disk, struct op *op)
{
	while (op->left)
		favo_disk_wait(disk);
}

static struct favo_disk *open_disk(const char *base, const char *overlay, bool uring,
				   int ret)
{
	struct favo_disk_opts opts = {
		.fd = open(base, O_RDONLY | O_CLOEXEC),
		.overlay_fd = open(overlay, O_RDWR | O_CLOEXEC),
		.uring = uring,
		.depth = 16,
	};
	struct favo_disk *disk = NULL;
	struct favo_err err = {0};

	assert_int_equal(favo_disk_open(&disk, &opts, &err), ret);
	if (ret < 0)
		assert_true(err.msg[0] != '\0');
	return disk;
}

static void copy_file(const char *from, const char *to)
{
	char *command = favo_asprintf("cp --sparse=always %s %s", from, to);

	assert_int_equal(system(command), 0);
	free(command);
}

static void check_all(struct favo_disk *disk, const uint8_t *model)
{
	struct op op = {.buf = malloc(SIZE)};

	submit(disk, &op, FAVO_DISK_READ, 0, SIZE);
	finish(disk, &op);
	assert_memory_equal(op.buf, model, SIZE);
	free(op.buf);
}

static void fill_random(uint8_t *p, size_t n, unsigned *seed)
{
	memset(p, rand_r(seed), n);
	p[0] = (uint8_t)rand_r(seed);
}

/* Random requests, several at once where they do not overlap, with re-opens. */
static void overlay_against_model(struct blk_fixture *f, bool uring, unsigned seed)
{
	uint8_t *model = malloc(SIZE);
	int fd = open(f->base, O_RDONLY | O_CLOEXEC);
	struct op ops[8] = {0};
	struct favo_disk *disk;

	assert_int_equal(pread(fd, model, SIZE, 0), SIZE);
	close(fd);
	assert_int_equal(truncate(f->overlay, 0), 0);
	disk = open_disk(f->base, f->overlay, uring, 0);
	for (unsigned i = 0; i < 8; i++)
		ops[i].buf = malloc(SIZE);
	for (unsigned round = 0; round < 300; round++) {
		/* Each of the eight has an eighth of the disk. */
		for (unsigned i = 0; i < 8; i++) {
			uint64_t sectors = 1 + (unsigned)rand_r(&seed) % 20;
			uint64_t off = (i * 256 + (unsigned)rand_r(&seed) % 236) * 512;
			unsigned what = (unsigned)rand_r(&seed) % 8;

			if (what < 5) {
				fill_random(ops[i].buf, sectors * 512, &seed);
				memcpy(model + off, ops[i].buf, sectors * 512);
				submit(disk, &ops[i], FAVO_DISK_WRITE, off,
				       sectors * 512);
			} else if (what == 5) {
				memset(model + off, 0, sectors * 512);
				submit(disk, &ops[i], FAVO_DISK_ZERO, off, sectors * 512);
				ops[i].req.may_unmap = round & 1;
			} else if (what == 6) {
				submit(disk, &ops[i], FAVO_DISK_FLUSH, 0, 0);
			} else {
				submit(disk, &ops[i], FAVO_DISK_READ, off, sectors * 512);
			}
		}
		for (unsigned i = 0; i < 8; i++)
			finish(disk, &ops[i]);
		if (round % 50 == 49) {
			check_all(disk, model);
			favo_disk_free(disk);
			disk = open_disk(f->base, f->overlay, uring, 0);
			check_all(disk, model);
		}
	}
	favo_disk_free(disk);
	for (unsigned i = 0; i < 8; i++)
		free(ops[i].buf);
	free(model);
}

static void test_overlay_model(void **state)
{
	for (unsigned seed = 1; seed < 4; seed++) {
		overlay_against_model(*state, true, seed);
		overlay_against_model(*state, false, seed);
	}
}

/* Two first writes to different parts of one cluster, at the same time. */
static void test_overlay_same_cluster(void **state)
{
	struct blk_fixture *f = *state;
	struct favo_disk *disk = open_disk(f->base, f->overlay, true, 0);
	struct op ops[8] = {0}, read = {.buf = malloc(4096)};

	for (unsigned i = 0; i < 8; i++) {
		ops[i].buf = malloc(512);
		memset(ops[i].buf, 'a' + (int)i, 512);
		submit(disk, &ops[i], FAVO_DISK_WRITE, 4096 + i * 512, 512);
	}
	for (unsigned i = 0; i < 8; i++)
		finish(disk, &ops[i]);
	submit(disk, &read, FAVO_DISK_READ, 4096, 4096);
	finish(disk, &read);
	for (unsigned i = 0; i < 4096; i++)
		assert_int_equal(read.buf[i], 'a' + i / 512);
	favo_disk_free(disk);
	for (unsigned i = 0; i < 8; i++)
		free(ops[i].buf);
	free(read.buf);
}

/*
 * What a crash leaves: a copy of the file at that moment. Flushed data is there,
 * an unflushed write is or is not, and a torn map page costs nothing.
 */
static void test_overlay_crash(void **state)
{
	struct blk_fixture *f = *state;
	struct favo_disk *disk = open_disk(f->base, f->overlay, true, 0), *copy;
	struct op op = {.buf = malloc(4096)};
	char crashed[32];
	uint8_t junk[4096];
	int fd;

	close(temp_file(crashed, 0));
	memset(junk, 0x5a, sizeof(junk));
	for (unsigned i = 0; i < 4; i++) {
		memset(op.buf, 'A' + (int)i, 4096);
		submit(disk, &op, FAVO_DISK_WRITE, i * 4096, 4096);
		finish(disk, &op);
		submit(disk, &op, FAVO_DISK_FLUSH, 0, 0);
		finish(disk, &op);
	}
	memset(op.buf, 'Z', 4096);
	submit(disk, &op, FAVO_DISK_WRITE, 4 * 4096, 4096);
	finish(disk, &op);
	copy_file(f->overlay, crashed);
	/* The slot that the next flush would write is torn. */
	fd = open(crashed, O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, junk, 2000, 8192), 2000);
	close(fd);
	copy = open_disk(f->base, crashed, true, 0);
	for (unsigned i = 0; i < 5; i++) {
		submit(copy, &op, FAVO_DISK_READ, i * 4096, 4096);
		finish(copy, &op);
		if (i < 4)
			assert_int_equal(op.buf[0], 'A' + i);
		else
			assert_int_equal(*(uint64_t *)(void *)op.buf, 4 * 512);
	}
	favo_disk_free(copy);
	favo_disk_free(disk);
	unlink(crashed);
	free(op.buf);
}

/* Foreign or damaged overlay files are refused with a sentence. */
static void test_overlay_damage(void **state)
{
	struct blk_fixture *f = *state;
	struct favo_disk *disk = open_disk(f->base, f->overlay, true, 0);
	struct op op = {.buf = calloc(1, 4096)};
	char bad[32], other[32];
	static const struct {
		off_t at, length;
		const char *bytes;
		size_t n;
		int ret;
	} rows[] = {
		{0, -1, "X", 1, -EINVAL}, /* magic */
		{9, -1, "\1", 1, -EINVAL}, /* version, checksum */
		{18, -1, "\1", 1, -EINVAL}, /* disk size */
		{4092, -1, "\0\0\0\0", 4, -EINVAL}, /* checksum */
		{4096 + 40, -1, "\xff", 1, 0}, /* older slot: other one holds */
		{2 * 4096 + 40, -1, "\xff", 1, -EINVAL}, /* newest slot: see below */
		{0, 4096, "", 0, -EINVAL}, /* cut behind the header */
		{0, 65536 + SIZE - 1, "", 0, -EINVAL}, /* cut by a byte */
		{0, 100, "", 0, -EINVAL},
	};

	close(temp_file(bad, 0));
	/* One flush: the map is in the second slot, the first one was never used. */
	submit(disk, &op, FAVO_DISK_WRITE, 0, 4096);
	finish(disk, &op);
	submit(disk, &op, FAVO_DISK_FLUSH, 0, 0);
	finish(disk, &op);
	favo_disk_free(disk);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		int fd, ret = rows[i].ret;

		copy_file(f->overlay, bad);
		fd = open(bad, O_RDWR | O_CLOEXEC);
		if (rows[i].length >= 0)
			assert_int_equal(ftruncate(fd, rows[i].length), 0);
		assert_int_equal(pwrite(fd, rows[i].bytes, rows[i].n, rows[i].at),
				 rows[i].n);
		/* With both slots bad there is nothing to fall back to. */
		if (rows[i].at == 2 * 4096 + 40)
			assert_int_equal(pwrite(fd, "\xff", 1, 4096 + 40), 1);
		close(fd);
		favo_disk_free(open_disk(f->base, bad, true, ret));
	}
	/* The header lost, but not the map. */
	copy_file(f->overlay, bad);
	assert_int_equal(truncate(bad, 8192 + 4096), 0);
	{
		int fd = open(bad, O_RDWR | O_CLOEXEC);
		uint8_t zeros[4096] = {0};

		assert_int_equal(pwrite(fd, zeros, 4096, 0), 4096);
		close(fd);
	}
	open_disk(f->base, bad, true, -EINVAL);
	/* A base of another size; an overlay in use. */
	close(temp_file(other, SIZE / 2));
	open_disk(other, f->overlay, true, -EINVAL);
	disk = open_disk(f->base, f->overlay, true, 0);
	open_disk(f->base, f->overlay, true, -EBUSY);
	favo_disk_free(disk);
	unlink(bad);
	unlink(other);
	free(op.buf);
}

static void test_bad_specs(void **state)
{
	struct blk_fixture *f = *state;
	const char *const rows[] = {
		"",
		"ro",
		"path=/nonexistent/favo",
		"path=/",
		"path=/dev/null",
		"path=%s,fd=3",
		"path=%s,ro,overlay=/x",
		"path=%s,io=fast",
		"path=%s,ro=1",
		"path=%s,color=red",
		"path=%s,queues=0",
		"path=%s,queues=33",
		"path=%s,overlay=/nonexistent/x",
		"fd=4000",
	};
	struct favo_vm *vm;

	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		const char *mark = strstr(rows[i], "%s");
		char *spec = mark ? favo_asprintf("path=%s%s", f->base, mark + 2)
				  : favo_asprintf("%s", rows[i]);
		struct favo_err err = {0};

		assert_true(favo_disk_add(vm, spec, &err) < 0);
		assert_true(err.msg[0] != '\0');
		free(spec);
	}
	fake_vm_free(vm);
}

/* A disk that one VM writes to is not for a second one. */
static void test_lock(void **state)
{
	struct blk_fixture *f = *state;
	struct favo_vm *vm;
	char *spec = favo_asprintf("path=%s", f->base);

	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	assert_int_equal(favo_disk_add(vm, spec, NULL), 0);
	assert_int_equal(favo_disk_add(vm, spec, NULL), -EBUSY);
	fake_vm_free(vm);
	free(spec);
}

int main(void)
{
#define BLK(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		BLK(test_round_trip),	       BLK(test_bad_requests),
		BLK(test_no_header_or_status), BLK(test_any_layout),
		BLK(test_read_only),	       BLK(test_discard_and_zero),
		BLK(test_many_in_flight),      BLK(test_queues),
		BLK(test_reset_in_flight),     BLK(test_overlay_device),
		BLK(test_overlay_model),       BLK(test_overlay_same_cluster),
		BLK(test_overlay_crash),       BLK(test_overlay_damage),
		BLK(test_bad_specs),	       BLK(test_lock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
