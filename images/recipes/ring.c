// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A small MPI program that shows where it runs and that messages arrive: every
 * rank reports host, kernel and operating system; a token goes round the ring
 * with each rank adding to it; an allreduce sums a vector. Both results are
 * checked. Exit code 0 only when all is right on every rank.
 */
#define _GNU_SOURCE
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#define VALUES 4096
#define REPORT 512

/* Value of one key of an "KEY=VALUE" file, without quotes. */
static void file_value(const char *path, const char *key, char *value, size_t size)
{
	char line[256];
	size_t len = strlen(key);
	FILE *f = fopen(path, "r");

	snprintf(value, size, "unknown");
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, key, len) || line[len] != '=')
			continue;
		char *start = line + len + 1;

		start += *start == '"';
		start[strcspn(start, "\"\n")] = '\0';
		snprintf(value, size, "%s", start);
	}
	if (f)
		fclose(f);
}

static void first_line(const char *path, char *text, size_t size)
{
	FILE *f = fopen(path, "r");

	if (!f || !fgets(text, size, f))
		snprintf(text, size, "unknown");
	text[strcspn(text, "\n")] = '\0';
	if (f)
		fclose(f);
}

static void report(int rank, int size)
{
	char mine[REPORT], os[128], image[128], boot[64], *all = NULL;
	struct utsname uts;

	uname(&uts);
	file_value("/etc/os-release", "PRETTY_NAME", os, sizeof(os));
	file_value("/etc/os-release", "IMAGE_ID", image, sizeof(image));
	first_line("/proc/sys/kernel/random/boot_id", boot, sizeof(boot));
	snprintf(mine, sizeof(mine),
		 "rank %d of %d: host %s, kernel %s, boot %s, os %s, image %s", rank,
		 size, uts.nodename, uts.release, boot, os, image);
	if (rank == 0)
		all = calloc(size, REPORT);
	MPI_Gather(mine, REPORT, MPI_CHAR, all, REPORT, MPI_CHAR, 0, MPI_COMM_WORLD);
	for (int i = 0; all && i < size; i++)
		printf("%s\n", all + (size_t)i * REPORT);
	free(all);
}

/* The token starts as 0; after the round it holds 1 + 2 + ... + size. */
static int ring(int rank, int size)
{
	long token = 0, wanted = (long)size * (size + 1) / 2;
	int next = (rank + 1) % size, previous = (rank + size - 1) % size;
	double start = MPI_Wtime();

	if (size == 1)
		return 0;
	if (rank > 0)
		MPI_Recv(&token, 1, MPI_LONG, previous, 0, MPI_COMM_WORLD,
			 MPI_STATUS_IGNORE);
	token += rank + 1;
	MPI_Send(&token, 1, MPI_LONG, next, 0, MPI_COMM_WORLD);
	if (rank > 0)
		return 0;
	MPI_Recv(&token, 1, MPI_LONG, previous, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
	printf("ring: token %ld, expected %ld, %.0f us per hop: %s\n", token, wanted,
	       (MPI_Wtime() - start) / size * 1e6, token == wanted ? "ok" : "WRONG");
	return token != wanted;
}

static int allreduce(int rank, int size)
{
	static double in[VALUES], out[VALUES];
	int wrong = 0, total = 0;

	for (int i = 0; i < VALUES; i++)
		in[i] = rank + i;
	MPI_Allreduce(in, out, VALUES, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
	for (int i = 0; i < VALUES; i++)
		wrong += out[i] != (double)size * (size - 1) / 2 + (double)size * i;
	MPI_Reduce(&wrong, &total, 1, MPI_INT, MPI_SUM, 0, MPI_COMM_WORLD);
	if (rank == 0)
		printf("allreduce: %d values on %d ranks, %d wrong: %s\n", VALUES, size,
		       total, total ? "WRONG" : "ok");
	return wrong;
}

int main(int argc, char **argv)
{
	int rank, size, failed, any;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &size);
	report(rank, size);
	failed = ring(rank, size);
	failed += allreduce(rank, size);
	MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
	MPI_Finalize();
	return any ? 1 : 0;
}
