// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Runs a fuzz target over the files named on the command line, or over all
 * files of folders named there: what "make check" does with each corpus, with
 * any compiler. Also tries each file cut short and with single bits flipped,
 * so that a corpus of a few good inputs is worth something.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MAX (1u << 20)
#define VARIANTS 2000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long runs;

/* On the heap and exactly as long as it is: the sanitizers see each step beyond. */
static void run_once(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);

	if (!copy)
		abort();
	if (size)
		memcpy(copy, data, size);
	LLVMFuzzerTestOneInput(copy, size);
	free(copy);
	runs++;
}

static void run_variants(uint8_t *data, size_t size)
{
	size_t bits = size * 8, step = bits / VARIANTS + 1;

	run_once(data, size);
	for (size_t len = 0; len < size; len += size / VARIANTS + 1)
		run_once(data, len);
	for (size_t bit = 0; bit < bits; bit += step) {
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		run_once(data, size);
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static void run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = malloc(FILE_MAX);
	size_t n;

	if (!f || !data) {
		perror(path);
		exit(1);
	}
	n = fread(data, 1, FILE_MAX, f);
	fclose(f);
	run_variants(data, n);
	free(data);
}

static void run_path(const char *path)
{
	struct stat st;
	struct dirent *entry;
	DIR *dir;

	if (stat(path, &st) < 0) {
		perror(path);
		exit(1);
	}
	if (!S_ISDIR(st.st_mode)) {
		run_file(path);
		return;
	}
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) != NULL) {
		char file[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		run_file(file);
	}
	if (dir)
		closedir(dir);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		run_path(argv[i]);
	printf("%lu inputs\n", runs);
	return runs ? 0 : 1;
}
