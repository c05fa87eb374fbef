/* A plugin for qemu-user: how often each aarch64 instruction word ran.
 *
 * A program that writes a line to stdout or stderr makes a cut: the counts so far go to the output file, so that what ran between two
 * lines (an inference) is a difference. The file: a line `cut N TOTAL`, then a line `WORD COUNT` for each word that ran.
 *
 * The few declarations of qemu's plugin interface (version 4, GPL-2.0-or-later as qemu is) are written out here, because no Debian package
 * holds the header.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct { void *scoreboard; size_t offset; } counter_t;
typedef void (*translated_t)(uint64_t id, void *block);
typedef void (*exited_t)(uint64_t id, void *data);
typedef void (*syscall_t)(uint64_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                          uint64_t f, uint64_t g, uint64_t h);

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translated_t callback);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, syscall_t callback);
void qemu_plugin_register_atexit_cb(uint64_t id, exited_t callback, void *data);
size_t qemu_plugin_tb_n_insns(const void *block);
void *qemu_plugin_tb_get_insn(const void *block, size_t index);
size_t qemu_plugin_insn_data(const void *instruction, void *to, size_t size);
void *qemu_plugin_scoreboard_new(size_t size);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(void *instruction, int operation, counter_t counter, uint64_t operand);
uint64_t qemu_plugin_u64_sum(counter_t counter);

EXPORT int qemu_plugin_version = 4;

enum { ADD = 0, WRITE = 64, SLOTS = 1 << 18 };

/* An open hash table: the word of each slot; the counts are in the scoreboard, where the emulator adds to them without a call. */
static uint32_t words[SLOTS];
static bool used[SLOTS];
static unsigned filled;
static void *scoreboard;
static FILE *out;
static unsigned cuts;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static counter_t counter(size_t slot) { return (counter_t){scoreboard, slot * sizeof(uint64_t)}; }

static size_t slot_of(uint32_t word)
{
    size_t slot = (word * UINT32_C(2654435761)) % SLOTS;
    while (used[slot] && words[slot] != word)
        slot = (slot + 1) % SLOTS;
    if (!used[slot]) {
        if (++filled > SLOTS / 2) {
            fputs("opcount: more different instructions than the table holds\n", stderr);
            abort();
        }
        used[slot] = true;
        words[slot] = word;
    }
    return slot;
}

static void translated(uint64_t id, void *block)
{
    (void)id;
    pthread_mutex_lock(&lock);
    for (size_t i = 0, n = qemu_plugin_tb_n_insns(block); i < n; i++) {
        void *instruction = qemu_plugin_tb_get_insn(block, i);
        uint32_t word = 0;
        qemu_plugin_insn_data(instruction, &word, sizeof word);
        qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction, ADD, counter(slot_of(word)), 1);
    }
    pthread_mutex_unlock(&lock);
}

static void cut(void)
{
    pthread_mutex_lock(&lock);
    uint64_t total = 0;
    for (size_t slot = 0; slot < SLOTS; slot++)
        if (used[slot])
            total += qemu_plugin_u64_sum(counter(slot));
    fprintf(out, "cut %u %" PRIu64 "\n", cuts++, total);
    for (size_t slot = 0; slot < SLOTS; slot++)
        if (used[slot])
            fprintf(out, "%08" PRIx32 " %" PRIu64 "\n", words[slot], qemu_plugin_u64_sum(counter(slot)));
    fflush(out);
    pthread_mutex_unlock(&lock);
}

static void called(uint64_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
                   uint64_t g, uint64_t h)
{
    (void)id, (void)cpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number == WRITE && (a == 1 || a == 2))
        cut();
}

static void exited(uint64_t id, void *data)
{
    (void)id, (void)data;
    cut();
    fclose(out);
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv)
{
    (void)info;
    const char *path = "opcount.out";
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "out=", 4))
            path = argv[i] + 4;
    out = fopen(path, "w");
    if (!out)
        return -1;
    scoreboard = qemu_plugin_scoreboard_new(SLOTS * sizeof(uint64_t));
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    qemu_plugin_register_atexit_cb(id, exited, NULL);
    return 0;
}
