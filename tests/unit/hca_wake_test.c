// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * No lost wake-up: two guests that poll for a while and then sleep on their
 * completion channel, again and again, so that doorbell pages change between
 * trapped and mapped, and armings are overwritten by polls as providers do it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/hca_world.h"

#define ROUNDS 2000u
#define PHASE 200u /* messages polled for, then messages slept for */

static struct world world;

/* ibv_get_cq_event, ibv_req_notify_cq, ibv_poll_cq: arm, look, sleep. */
static bool next_completion(struct side *s, struct pvrdma_cqe *cqe, bool sleeps)
{
	uint32_t cq;

	if (!sleeps)
		return drv_wait(&s->cq, cqe, WAIT_MS);
	while (!drv_poll(&s->cq, cqe)) {
		drv_arm(&s->cq, false);
		if (drv_poll(&s->cq, cqe)) /* its POLL overwrites the arming */
			return true;
		if (!drv_wait_vector(&s->vm, 2, WAIT_MS))
			return false;
		while (drv_next_notify(&s->vm, &cq))
			;
	}
	return true;
}

struct player {
	struct side *s;
	bool starts, ok;
	unsigned phase;
};

static void *play(void *arg)
{
	struct player *p = arg;
	struct side *s = p->s;
	struct pvrdma_sge out = side_sge(s, 0, 8), in = side_sge(s, 4096, 8);
	struct pvrdma_sq_wqe w = wqe(PVRDMA_WR_SEND);

	w.send_flags = 0;
	drv_post_recv(&s->qp, 0, &in, 1);
	for (unsigned i = 0; i < ROUNDS; i++) {
		bool sleeps = (i / p->phase) & 1;
		struct pvrdma_cqe cqe;

		if (p->starts)
			drv_post_send(&s->qp, &w, &out);
		if (!next_completion(s, &cqe, sleeps) || cqe.opcode != PVRDMA_WC_RECV ||
		    cqe.status != PVRDMA_WC_SUCCESS)
			return NULL;
		drv_post_recv(&s->qp, i, &in, 1);
		if (!p->starts)
			drv_post_send(&s->qp, &w, &out);
	}
	p->ok = true;
	return NULL;
}

static void ping_pong(int64_t spin_us)
{
	struct player p[2] = {{.s = &world.s[0], .starts = true, .phase = PHASE},
			      {.s = &world.s[1], .phase = PHASE + 77}};
	pthread_t t[2];

	world_open(&world, 2, spin_us);
	for (unsigned i = 0; i < 2; i++) {
		struct drv_qp_opts o = side_qp_opts(&world.s[i], PVRDMA_QPT_RC);

		o.signal_all = false;
		assert_int_equal(drv_qp(&world.s[i].vm, &o, &world.s[i].qp), 0);
	}
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(drv_connect(&world.s[i].qp, &world.s[!i].gid,
					     world.s[!i].qp.qpn, DRV_RNR_FOREVER),
				 0);
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, play, &p[i]), 0);
	for (unsigned i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(p[i].ok);
		/* Both modes were met, or this shows nothing. */
		assert_true(world.s[i].vm.mapped > 0);
		assert_true(world.s[i].vm.trapped > 0);
	}
	world_close(&world);
}

static void test_spinning(void **state)
{
	(void)state;
	ping_pong(200);
}

/* As on a node with one processor: naps only. */
static void test_napping(void **state)
{
	(void)state;
	ping_pong(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_spinning),
		cmocka_unit_test(test_napping),
	};

	alarm(300);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
