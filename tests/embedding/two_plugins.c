/* A host that loads two libraries, each with a trap runtime of its own, and opens both on each thread. They
 * close and open again in either order: what is open goes on as before. Prints how many answers were
 * wrong. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct library {
    void *(*open)(void);
    int (*load)(void *, int, const char *);
    int (*close)(void *);
};

static struct library libraries[2];
static int first_to_close;

static struct library load_library(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) exit(2);
    struct library loaded = {
        (void *(*)(void))dlsym(library, "plugin_open"),
        (int (*)(void *, int, const char *))dlsym(library, "plugin_load"),
        (int (*)(void *))dlsym(library, "plugin_close"),
    };
    return loaded;
}

static long exercise(struct library *library, void *plugin) {
    long wrong = 0;
    for (int i = 0; i < 100; ++i) {
        char byte = 42;
        wrong += library->load(plugin, 0, &byte) != 42;       /* no fault */
        wrong += library->load(plugin, 0, (char *)8) != 1005; /* a trap */
    }
    return wrong;
}

static void *thread(void *unused) {
    (void)unused;
    void *plugins[2];
    long wrong = 0;
    for (int i = 0; i < 2; ++i) {
        plugins[i] = libraries[i].open();
        if (!plugins[i]) exit(3);
    }
    for (int i = 0; i < 2; ++i) wrong += exercise(&libraries[i], plugins[i]);
    int first = first_to_close, second = 1 - first_to_close;
    libraries[first].close(plugins[first]);
    wrong += exercise(&libraries[second], plugins[second]);
    plugins[first] = libraries[first].open();
    wrong += exercise(&libraries[first], plugins[first]);
    libraries[second].close(plugins[second]);
    wrong += exercise(&libraries[first], plugins[first]);
    libraries[first].close(plugins[first]);
    return (void *)wrong;
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    for (int i = 0; i < 2; ++i) libraries[i] = load_library(arguments[1 + i]);
    first_to_close = atoi(arguments[3]);
    void *wrong = thread(0);
    pthread_t other;
    for (int i = 0; i < 4; ++i) {
        void *theirs;
        pthread_create(&other, 0, thread, 0);
        pthread_join(other, &theirs);
        wrong = (void *)((long)wrong + (long)theirs);
    }
    printf("wrong %ld\n", (long)wrong);
    return 0;
}
