/* A host that loads the plugin and has a handler of SIGSEGV of its own, which makes a page of its
 * accessible when it faults. Installed before the plugin's, the handler is called by that; installed
 * after, it calls that for faults that are not its own. Prints what happened; tests/embedding says what
 * must have. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef void *(*open_fn)(void);
typedef int (*load_fn)(void *, int, const char *);
typedef int (*close_fn)(void *);

static open_fn plugin_open;
static load_fn plugin_load;
static close_fn plugin_close;

static struct sigaction previous;
static int chains;
static _Atomic int fixed;
static __thread char *page;

static void on_fault(int signal, siginfo_t *info, void *context) {
    char *address = info->si_addr;
    if (page && address >= page && address < page + 4096) {
        ++fixed;
        mprotect(page, 4096, PROT_READ);
        return;
    }
    if (chains && (previous.sa_flags & SA_SIGINFO)) {
        previous.sa_sigaction(signal, info, context);
        return;
    }
    static const char lost[] = "lost\n";
    fwrite(lost, 1, sizeof lost - 1, stderr);
    _Exit(3);
}

static void install(int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | flags;
    if (sigaction(SIGSEGV, &action, &previous)) exit(4);
}

static void lock(void) {
    mprotect(page, 4096, PROT_NONE);
}

/* All kinds of faults, with an open plugin; gives what was wrong. */
static int exercise(void *plugin) {
    int wrong = 0;
    page = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) exit(5);
    for (int i = 0; i < 100; ++i) {
        char byte = 42;
        lock();
        wrong += *(volatile char *)page != 0;             /* the host's own */
        wrong += plugin_load(plugin, 0, &byte) != 42;     /* no fault */
        wrong += plugin_load(plugin, 0, (char *)8) != 1005; /* a trap */
        lock();
        wrong += plugin_load(plugin, 1, page) != 0;       /* a guest's, and no trap */
    }
    char *own = page;
    page = 0;
    munmap(own, 4096);
    return wrong;
}

static void *thread(void *unused) {
    (void)unused;
    void *plugin = plugin_open();
    if (!plugin) exit(6);
    long wrong = exercise(plugin);
    plugin_close(plugin);
    return (void *)wrong;
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    int before = !strcmp(arguments[2], "before");
    int flags = !strcmp(arguments[3], "onstack") ? SA_ONSTACK : 0;
    chains = !before;
    if (before) install(flags);
    void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    plugin_open = (open_fn)dlsym(library, "plugin_open");
    plugin_load = (load_fn)dlsym(library, "plugin_load");
    plugin_close = (close_fn)dlsym(library, "plugin_close");
    void *plugin = plugin_open();
    if (!plugin) return 6;
    if (!before) install(flags);
    int wrong = exercise(plugin);
    pthread_t threads[4];
    for (int i = 0; i < 4; ++i) pthread_create(&threads[i], 0, thread, 0);
    for (int i = 0; i < 4; ++i) {
        void *theirs;
        pthread_join(threads[i], &theirs);
        wrong += (int)(long)theirs;
    }
    if (!before) sigaction(SIGSEGV, &previous, 0);
    int uninstalled = plugin_close(plugin);
    dlclose(library);
    /* And now it is as if the plugin had never been. */
    int last = -1;
    if (before) {
        page = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        last = *(volatile char *)page;
    }
    printf("wrong %d, fixed %d, uninstalled %d, last %d\n", wrong, fixed, uninstalled, last);
    return 0;
}
