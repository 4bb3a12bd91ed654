// SPDX-License-Identifier: GPL-2.0-or-later
/* Figures of favo vc top: from good guests, and from ones that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/util.h"
#include "provision/cli/vc_top.h"

static bool feed(struct favo_top_vm *vm, const char *const *lines, size_t n)
{
	bool complete = false;

	for (size_t i = 0; i < n; i++)
		complete = favo_top_line(vm, lines[i]);
	return complete;
}

static void test_figures(void **state)
{
	static const char *const first[] = {
		"cpu  100 0 50 1000 20 0 0 30 0 0\n",
		"cpu0 50 0 25 500 10 0 0 15 0 0\n",
		"cpu1 50 0 25 500 10 0 0 15 0 0\n",
		"MemTotal:        1000000 kB\n",
		"MemAvailable:     400000 kB\n",
		"net     lo: 9999999 1 0 0 0 0 0 0 9999999 1 0 0 0 0 0 0\n",
		"net   eth0: 1000 1 0 0 0 0 0 0 2000 1 0 0 0 0 0 0\n",
		"up 10.00 5.00\n",
	};
	static const char *const second[] = {
		"cpu  200 0 150 1150 20 0 0 80 0 0\n",
		"cpu0 0 0 0 0 0 0 0 0 0 0\n",
		"cpu1 0 0 0 0 0 0 0 0 0 0\n",
		"MemTotal:        1000000 kB\n",
		"MemAvailable:     300000 kB\n",
		"net   eth0: 5000 1 0 0 0 0 0 0 4000 1 0 0 0 0 0 0\n",
		"net   eth1:1000 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0\n",
		"up 12.00 5.00\n",
	};
	struct favo_top_vm vm = {.name = "vm0", .node = "n1"};
	json_t *obj;

	(void)state;
	assert_true(feed(&vm, first, FAVO_ARRAY_SIZE(first)));
	assert_int_equal(vm.samples, 1);
	/* One sample tells of memory alone. */
	assert_int_equal((int)favo_top_cpu_percent(&vm), 0);
	assert_int_equal(favo_top_rx_rate(&vm), 0);
	assert_int_equal(favo_top_mem_used(&vm), UINT64_C(600000) * 1024);
	assert_true(feed(&vm, second, FAVO_ARRAY_SIZE(second)));
	/* 200 ticks of 400 on two CPUs; stolen ticks are not the guest's. */
	assert_int_equal((int)favo_top_cpu_percent(&vm), 100);
	assert_int_equal(favo_top_mem_used(&vm), UINT64_C(700000) * 1024);
	assert_int_equal(favo_top_rx_rate(&vm), 2500);
	assert_int_equal(favo_top_tx_rate(&vm), 1000);
	obj = favo_top_json(&vm);
	assert_string_equal(json_string_value(json_object_get(obj, "vm")), "vm0");
	assert_int_equal(json_integer_value(json_object_get(obj, "cpus")), 2);
	json_decref(obj);
}

static void test_lies(void **state)
{
	static const char *const lines[] = {
		"",
		"\n",
		"cpu",
		"cpu \n",
		"cpu  1 2\n",
		"cpu  99999999999999999999999 -1 18446744073709551615 9 9 0 0 0\n",
		"MemTotal: -5 kB\n",
		"MemTotal: 18446744073709551615 kB\n",
		"Mem\n",
		"net \n",
		"net eth0: x\n",
		"net eth0: 18446744073709551615 1 0 0 0 0 0 0 18446744073709551615 1\n",
		"net eth1: 18446744073709551615 1 0 0 0 0 0 0 18446744073709551615 1\n",
		"up\n",
		"up -1 0\n",
		"up 1e300 0\n",
		"up nan 0\n",
		"\033[2J\n",
	};
	struct favo_top_vm vm = {.name = "vm0", .node = "n1"};

	(void)state;
	assert_false(feed(&vm, lines, FAVO_ARRAY_SIZE(lines)));
	assert_int_equal(vm.samples, 0);
	assert_true(favo_top_line(&vm, "up 1.0 0\n"));
	/* A clock and counters that go back. */
	assert_true(favo_top_line(&vm, "up 0.5 0\n"));
	assert_int_equal((int)favo_top_cpu_percent(&vm), 0);
	assert_int_equal(favo_top_rx_rate(&vm), 0);
	assert_int_equal(favo_top_mem_used(&vm), 0);
	assert_true(feed(&vm, lines, FAVO_ARRAY_SIZE(lines)) ||
		    favo_top_line(&vm, "up 1.0 0\n"));
	assert_true(favo_top_rx_rate(&vm) > 0);
	json_decref(favo_top_json(&vm));
}

/* The script runs in whatever shell an image has; here it meets this host's. */
static void test_script(void **state)
{
	favo_autofree char *script = favo_top_script(1, 2);
	struct favo_top_vm vm = {.name = "vm0", .node = "n1"};
	char line[4096], command[2048];
	FILE *in;
	int fds[2];
	pid_t pid;

	(void)state;
	snprintf(command, sizeof(command), "%s", script);
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		dup2(fds[1], STDOUT_FILENO);
		execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	in = fdopen(fds[0], "r");
	assert_non_null(in);
	while (fgets(line, sizeof(line), in))
		favo_top_line(&vm, line);
	fclose(in);
	assert_int_equal(vm.samples, 2);
	assert_true(vm.now.cpus >= 1);
	assert_true(vm.now.total > vm.before.total);
	assert_true(favo_top_mem_used(&vm) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_figures),
		cmocka_unit_test(test_lies),
		cmocka_unit_test(test_script),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
