/* SPDX-License-Identifier: MIT
 *
 * The command line: every option of the table, its limits, and what is said when it is wrong. The
 * sources are included because the commands are no part of the library. */
#include "fs/cli/option_table.c"
#include "fs/cli/options.c"
#include "fs/cli/size_text.c"
#include "fs/host/mount_table.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MAX_ARGUMENTS 16

/* Parses a command line given as words; the caller releases *out. */
static int parse(struct options *out, const char *command, ...)
{
    char *argv[MAX_ARGUMENTS];
    int argc = 0;
    va_list words;
    argv[argc++] = strdup(command);
    va_start(words, command);
    for (const char *word; argc < MAX_ARGUMENTS && (word = va_arg(words, const char *));)
        argv[argc++] = strdup(word);
    va_end(words);
    int result = options_parse(command, argc, argv, out);
    while (argc > 0)
        free(argv[--argc]);
    return result;
}

static int parse_mount_list(struct options *out, const char *list)
{
    return parse(out, "mount", "-o", list, "/source", "/mnt", NULL);
}

static void accepts(const char *list)
{
    struct options options;
    if (parse_mount_list(&options, list) != 0)
        fail_msg("%s: %s", list, options.message);
    options_release(&options);
}

static void refuses(const char *list, const char *words)
{
    struct options options;
    assert_int_equal(parse_mount_list(&options, list), -EINVAL);
    if (!strstr(options.message, words))
        fail_msg("%s: '%s' does not say '%s'", list, options.message, words);
    options_release(&options);
}

static void test_defaults(void **state)
{
    (void)state;
    struct options options;
    assert_int_equal(parse(&options, "mount", "/source", "/mnt", NULL), 0);
    assert_string_equal(options.mount.source, "/source");
    assert_string_equal(options.mount.mountpoint, "/mnt");
    assert_false(options.mount.foreground);
    assert_int_equal(options.mount.view.index, UNSHARD_INDEX_REWRITE);
    assert_int_equal(options.mount.view.order, UNSHARD_ORDER_SHARD);
    assert_int_equal(options.mount.fetch.prefetch, UNSHARD_PREFETCH_ALL);
    assert_int_equal(options.mount.fetch.jobs, 0);
    assert_int_equal(options.mount.fetch.chunk_bytes, 0);
    assert_null(options.mount.status_file);
    options_release(&options);
    assert_int_equal(parse(&options, "export", "/source", "/target", NULL), 0);
    assert_int_equal(options.mount.view.order, UNSHARD_ORDER_CANONICAL);
    options_release(&options);
}

static void test_every_mount_option(void **state)
{
    (void)state;
    struct options options;
    const char *list = "index=hide,order=canonical,layout=both,prefetch=follow,jobs=17,chunk=1M,"
                       "buffer=64M,window=2G,follow_symlinks,allow_other,status-file=/run/a\\,b,"
                       "log=/tmp/log,fsname=model";
    assert_int_equal(parse(&options, "mount", "/source", "-f", "-o", list, "/mnt", NULL), 0);
    const struct mount_options *mount = &options.mount;
    assert_true(mount->foreground && mount->allow_other && mount->view.follow_symlinks);
    assert_int_equal(mount->view.index, UNSHARD_INDEX_HIDE);
    assert_int_equal(mount->view.order, UNSHARD_ORDER_CANONICAL);
    assert_int_equal(mount->view.layout, UNSHARD_LAYOUT_BOTH);
    assert_int_equal(mount->fetch.prefetch, UNSHARD_PREFETCH_FOLLOW);
    assert_int_equal(mount->fetch.jobs, 17);
    assert_int_equal(mount->fetch.chunk_bytes, 1 << 20);
    assert_int_equal(mount->fetch.buffer_bytes, 64 << 20);
    assert_int_equal(mount->fetch.window_bytes, INT64_C(2) << 30);
    assert_string_equal(mount->status_file, "/run/a,b");
    assert_string_equal(mount->log_path, "/tmp/log");
    assert_string_equal(mount->fsname, "model");
    options_release(&options);
}

static void test_generic_options_are_ignored(void **state)
{
    (void)state;
    accepts("ro,defaults,auto,noauto,user,user=me,nofail,_netdev,x-systemd.automount,"
            "x-systemd.requires=/a,dev,nodev,suid,nosuid,exec,noexec,noatime");
    accepts("");
    accepts(",,ro,");
    refuses("rw", "read-only");
}

static void test_limits(void **state)
{
    (void)state;
    accepts("jobs=1");
    accepts("jobs=256");
    refuses("jobs=0", "1 to 256");
    refuses("jobs=257", "jobs=257");
    refuses("jobs=-1", "jobs=-1");
    refuses("jobs=99999999999999999999", "1 to 256");
    accepts("chunk=64K");
    accepts("chunk=64M,buffer=512M");
    refuses("chunk=32K", "power of two");
    refuses("chunk=128M", "power of two");
    refuses("chunk=3M", "power of two");
    accepts("chunk=1M,buffer=8M");
    refuses("chunk=1M,buffer=7M", "8 chunks");
    refuses("buffer=8M", "8 chunks");
    refuses("window=0", "window=0");
    refuses("window=16777216T", "window=");
    refuses("allow_other,allow_root", "exclude");
}

static void test_split(void **state)
{
    (void)state;
    struct options o;
    assert_int_equal(parse_mount_list(&o, "jobs=2"), 0);
    assert_null(o.mount.view.split);
    options_release(&o);
    assert_int_equal(parse_mount_list(&o, "split=a.=x\\,b.=y,split=c"), 0);
    assert_string_equal(o.mount.view.split, "a.=x,b.=y,c");
    options_release(&o);
    assert_int_equal(parse(&o, "export", "/source", "/target", NULL), 0);
    assert_string_equal(o.mount.view.split, "off");
    options_release(&o);
    assert_int_equal(parse(&o, "export", "-o", "split=auto", "/source", "/target", NULL), 0);
    assert_string_equal(o.mount.view.split, "auto");
    options_release(&o);
    refuses("split=", "needs a value");
    refuses("split=a=/etc", "directory");
    refuses("split=a,b", "unknown option 'b'");
    accepts("layout=shards");
    accepts("layout=shards,split=off,pickle=asis,order=canonical");
    refuses("split=a,layout=shards", "leave split= out");
    refuses("layout=shards,index=hide", "leave index=hide out");
}

static void test_wrong_options(void **state)
{
    (void)state;
    refuses("prefetsh=all", "'prefetsh'; did you mean 'prefetch'?");
    refuses("zzz", "unknown option 'zzz'");
    refuses("index=maybe", "rewrite|hide");
    refuses("index", "needs a value");
    refuses("index=", "needs a value");
    refuses("allow_other=1", "takes no value");
    refuses("order=shar", "shard|canonical");
    refuses("tensors", "unknown option 'tensors'");
}

static void refuses_words(const char *words, struct options *options, int result)
{
    assert_int_equal(result, -EINVAL);
    if (!strstr(options->message, words))
        fail_msg("'%s' does not say '%s'", options->message, words);
    options_release(options);
}

static void test_arguments(void **state)
{
    (void)state;
    struct options o;
    refuses_words("missing", &o, parse(&o, "mount", "/source", NULL));
    refuses_words("too many: '/c'", &o, parse(&o, "mount", "/a", "/b", "/c", NULL));
    refuses_words("empty", &o, parse(&o, "ls", "", NULL));
    refuses_words("'-o' needs", &o, parse(&o, "mount", "/a", "/b", "-o", NULL));
    refuses_words("did you mean '--tensors'?", &o, parse(&o, "ls", "--tensor", "/a", NULL));
    refuses_words("'-x'", &o, parse(&o, "ls", "-x", "/a", NULL));
    refuses_words("chunk", &o, parse(&o, "ls", "-o", "chunk=1M", "/a", NULL));
    refuses_words("seconds", &o, parse(&o, "status", "-n", "0", "/a", NULL));
    refuses_words("seconds", &o, parse(&o, "status", "--interval=nan", "/a", NULL));
    refuses_words("no such command", &o, parse(&o, "fly", "/a", NULL));

    assert_int_equal(parse(&o, "status", "-jw", "-n2.5", "--", "-odd", NULL), 0);
    assert_true(o.json && o.watch && o.interval > 2.4 && o.interval < 2.6);
    assert_string_equal(o.mount.source, "-odd");
    options_release(&o);
    assert_int_equal(parse(&o, "umount", "-h", NULL), 0);
    assert_true(o.help);
    options_release(&o);
}

/* Whatever an option is, it is either explained in --help or one of mount(8)'s. */
static void test_help_names_every_option(void **state)
{
    (void)state;
    for (size_t i = 0; i < command_table_length; i++) {
        char *text = NULL;
        size_t length;
        FILE *stream = open_memstream(&text, &length);
        option_table_print_help(stream, &command_table[i]);
        fclose(stream);
        for (size_t j = 0; j < option_table_length; j++) {
            const struct option_entry *option = &option_table[j];
            if (!(option->commands & command_table[i].bit) || option->kind >= OPTION_IGNORED)
                continue;
            assert_non_null(option->help);
            assert_non_null(strstr(text, option->name));
        }
        free(text);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    uint64_t size;
    assert_int_equal(size_parse("65536", &size), 0);
    assert_int_equal(size, 65536);
    assert_int_equal(size_parse("3KiB", &size), 0);
    assert_int_equal(size, 3072);
    assert_int_equal(size_parse("1t", &size), 0);
    assert_int_equal(size, INT64_C(1) << 40);
    assert_int_equal(size_parse("16777216T", &size), -ERANGE);
    static const char *const wrong[] = {"", "K", "-1", "1.5M", "1X", "1Mx", " 1", "1 M", "1kk"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_equal(size_parse(wrong[i], &size), -EINVAL);
    assert_int_equal(edit_distance("kitten", "sitting"), 3);
    assert_int_equal(edit_distance("", "abc"), 3);
}

static const struct mounted table[] = {{98, 0, "/mnt", "/dev/root", "ext3"},
                                       {0, 40, "/mnt/a b", "/models", "fuse.unshard"},
                                       {0, 41, "/mnt", "-", "fuse.unshard"}};

static int compare_mounted(void *context, const struct mounted *mounted)
{
    int *seen = context;
    assert_true(*seen < 3);
    const struct mounted *expected = &table[(*seen)++];
    assert_int_equal(mounted->major_number, expected->major_number);
    assert_int_equal(mounted->minor_number, expected->minor_number);
    assert_string_equal(mounted->mountpoint, expected->mountpoint);
    assert_string_equal(mounted->source, expected->source);
    assert_string_equal(mounted->type, expected->type);
    assert_int_equal(mount_table_is_unshard(mounted->type), expected->major_number == 0);
    return 0;
}

static void test_mount_table(void **state)
{
    (void)state;
    char lines[] = "36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw\n"
                   "37 36 0:40 / /mnt/a\\040b ro - fuse.unshard /models ro,user_id=0\n"
                   "38 36 0:41 / /mnt ro shared:4 master:2 - fuse.unshard - ro\n"
                   "nonsense\n - \n";
    int seen = 0;
    FILE *stream = fmemopen(lines, sizeof lines - 1, "r");
    assert_int_equal(mount_table_each_of(stream, compare_mounted, &seen), 0);
    fclose(stream);
    assert_int_equal(seen, 3);
    char *path = mount_table_resolve("/usr/../nonexistent//");
    assert_string_equal(path, "/nonexistent");
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_mount_option),
        cmocka_unit_test(test_generic_options_are_ignored),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_wrong_options),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_help_names_every_option),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_mount_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
