// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo NOUN VERB: finds the verb, loads the site's configuration, runs it,
 * prints what failed. Knows nothing about any verb.
 */
#include "config.h"
#include "provision/cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/util.h"

#define TIMEOUT_MS 30000
#define EXIT_USAGE 2
/* No errno has it; main turns it into EXIT_USAGE. */
#define USAGE_ERROR (-5000)

static const struct favo_cli_noun *const nouns[] = {
	&favo_cli_vc,
	&favo_cli_image,
	&favo_cli_node,
	&favo_cli_rollout,
};

/* Verbs without a noun. */
static const struct favo_cli_verb *const singles[] = {
	&favo_cli_doctor,
};

int favo_cli_usage(struct favo_err *err, const char *fmt, ...)
{
	va_list ap;

	if (err) {
		err->code = EINVAL;
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
	}
	return USAGE_ERROR;
}

/*
 * Options may stand before, between and behind the words, as people type
 * them: parse from word to word, and gather the words at the end of argv.
 */
static int parse_mixed(const struct favo_opts *opts, int argc, char **argv, int *first,
		       struct favo_err *err)
{
	favo_autofree char **words = calloc((size_t)argc + 1, sizeof(*words));
	int n = 0, at = 0, used, ret;

	if (!words)
		return favo_fail(err, ENOMEM, "%s: %m", opts->program);
	while (at + 1 < argc) {
		/* argv[at] is the program's name or the word before */
		ret = favo_opts_cli(opts, argc - at, argv + at, &used, err);
		if (ret != 0)
			return ret;
		at += used;
		if (used > 1 && strcmp(argv[at - 1], "--") == 0) {
			while (at < argc)
				words[n++] = argv[at++];
			break;
		}
		if (at < argc)
			words[n++] = argv[at];
	}
	*first = argc - n;
	for (int i = 0; i < n; i++)
		argv[argc - n + i] = words[i];
	return 0;
}

int favo_cli_options(const struct favo_opts *opts, int argc, char **argv, int min,
		     int max, int *first, struct favo_err *err)
{
	int ret = favo_opts_defaults(opts, err);

	if (ret == 0)
		ret = parse_mixed(opts, argc, argv, first, err);
	if (ret > 0)
		return 1;
	if (ret < 0)
		return USAGE_ERROR;
	if (argc - *first < min)
		return favo_cli_usage(err, "a word is missing: %s %s", opts->program,
				      opts->synopsis);
	if (argc - *first > max)
		return favo_cli_usage(err, "too many words, from %s on; usage: %s %s",
				      argv[*first + max], opts->program, opts->synopsis);
	return 0;
}

int favo_cli_http(struct favo_cli *cli, struct favo_http **http, struct favo_err *err)
{
	struct favo_http_params params = {
		.base_url = cli->conf.favod_url,
		.munge_socket = cli->conf.munge_socket,
		.timeout_ms = TIMEOUT_MS,
	};
	int ret = cli->http ? 0 : favo_http_new(&cli->http, &params, err);

	if (ret == 0)
		*http = cli->http;
	return ret;
}

int favo_cli_print_json(const json_t *value, struct favo_err *err)
{
	if (json_dumpf(value, stdout, JSON_INDENT(2) | JSON_SORT_KEYS) < 0 ||
	    printf("\n") < 0 || fflush(stdout) != 0)
		return favo_fail(err, errno, "write to stdout: %m");
	return 0;
}

static void print_verb(const char *noun, const struct favo_cli_verb *v)
{
	char left[96];

	snprintf(left, sizeof(left), "%s%s%s %s", noun, *noun ? " " : "", v->name,
		 v->args);
	if (strlen(left) > 38)
		printf("  %s\n  %-38s  %s\n", left, "", v->about);
	else
		printf("  %-38s  %s\n", left, v->about);
}

static void print_noun(const struct favo_cli_noun *noun)
{
	printf("%s: %s\n", noun->name, noun->about);
	for (const struct favo_cli_verb *v = noun->verbs; v->name; v++)
		print_verb(noun->name, v);
}

static void print_help(void)
{
	printf("Usage: favo [--config PATH] NOUN VERB [ARGUMENT]...\n"
	       "Virtual clusters for Slurm: images, clusters, nodes.\n\n");
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(nouns); i++) {
		print_noun(nouns[i]);
		printf("\n");
	}
	printf("alone:\n");
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(singles); i++)
		print_verb("", singles[i]);
	printf("\nfavo NOUN VERB --help tells more. A job gets its virtual machines by\n"
	       "srun --vm-image=NAME, the same with sbatch and salloc.\n");
}

static const struct favo_cli_noun *find_noun(const char *name)
{
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(nouns); i++)
		if (strcmp(nouns[i]->name, name) == 0)
			return nouns[i];
	return NULL;
}

static const struct favo_cli_verb *find_verb(const struct favo_cli_noun *noun,
					     const char *name)
{
	for (const struct favo_cli_verb *v = noun->verbs; v->name; v++)
		if (strcmp(v->name, name) == 0)
			return v;
	return NULL;
}

static const struct favo_cli_verb *find_single(const char *name)
{
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(singles); i++)
		if (strcmp(singles[i]->name, name) == 0)
			return singles[i];
	return NULL;
}

static bool is_help(const char *word)
{
	return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 ||
	       strcmp(word, "help") == 0;
}

static int fail_usage(const char *what, const char *word)
{
	fprintf(stderr, "favo: %s%s%s; favo --help lists what there is\n", what,
		word ? " " : "", word ? word : "");
	return EXIT_USAGE;
}

/* argv[used] is the last word of the verb; it becomes its argv[0]. */
static int run_verb(const struct favo_cli_verb *verb, const char *config, int argc,
		    char **argv, int used)
{
	struct favo_cli cli = {0};
	struct favo_err err = {0};
	char program[64];
	int ret;

	snprintf(program, sizeof(program), "favo %s%s%s", argv[1], used > 1 ? " " : "",
		 used > 1 ? argv[2] : "");
	argv[used] = program;
	ret = favo_conf_load(&cli.conf, config, true, &err);
	if (ret == 0)
		ret = verb->run(&cli, argc - used, argv + used, &err);
	favo_http_free(cli.http);
	favo_conf_fini(&cli.conf);
	if (ret >= 0)
		return ret;
	fprintf(stderr, "%s: %s\n", program, err.msg);
	return ret == USAGE_ERROR ? EXIT_USAGE : 1;
}

int main(int argc, char **argv)
{
	const struct favo_cli_noun *noun;
	const struct favo_cli_verb *verb;
	const char *config = getenv("FAVO_CONF");

	favo_log_init("favo", FAVO_WARN, false, NULL);
	if (argc > 2 && strcmp(argv[1], "--config") == 0) {
		config = argv[2];
		argv += 2;
		argc -= 2;
	} else if (argc > 1 && strncmp(argv[1], "--config=", 9) == 0) {
		config = argv[1] + 9;
		argv++;
		argc--;
	}
	if (argc < 2 || is_help(argv[1])) {
		print_help();
		return argc < 2 ? EXIT_USAGE : 0;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("favo %s\n", PACKAGE_VERSION);
		return 0;
	}
	verb = find_single(argv[1]);
	if (verb)
		return run_verb(verb, config, argc, argv, 1);
	noun = find_noun(argv[1]);
	if (!noun)
		return fail_usage("there is no", argv[1]);
	if (argc < 3 || is_help(argv[2])) {
		print_noun(noun);
		return argc < 3 ? EXIT_USAGE : 0;
	}
	verb = find_verb(noun, argv[2]);
	if (!verb) {
		fprintf(stderr, "favo: %s has no verb %s\n", noun->name, argv[2]);
		print_noun(noun);
		return EXIT_USAGE;
	}
	return run_verb(verb, config, argc, argv, 2);
}
