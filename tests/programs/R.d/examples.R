# Runs the examples of a package's help pages, each in an environment of its own; an error is
# printed and the next one begins.
args <- commandArgs(TRUE)
options(digits = 10, width = 100, warn = 1, device = function(...) pdf(NULL))
skip <- c("Startup", "sessionInfo", "Sys.time", "as.POSIXlt", "DateTimeClasses", "difftime", "strptime", "date", "proc.time", "system.time", "gc", "gc.time",
    "gctorture", "Sys.getpid", "Sys.info", "timezones", "tempfile", "Rprof", "Rprofmem", "memory.profile",
    "object.size", "mem.maxVSize", "Cstack_info", "extSoftVersion", "libcurlVersion", "file.info",
    "Sys.setFileTime", "list.files", "files2", "socketSelect", "connections", "Sys.sleep", "Random.user",
    "system", "system2", "R.home", "Sys.getenv", "Sys.setenv", "tracemem", "environment", "sys.parent",
    "bindtextdomain", "La_library", "eSoftVersion", "commandArgs", "interaction.plot", "Reduce", "Memory",
    "download.file", "install.packages", "available.packages", "update.packages", "contrib.url", "browseURL",
    "nsl", "url.show", "chooseCRANmirror", "packageStatus", "RSiteSearch", "bug.report", "mirrorAdmin",
    "help.start", "make.socket", "read.socket", "create.post", "news", "Sys.readlink", "slotOp",
    "summaryRprof", "txtProgressBar", "savehistory", "cite", "hsearch-utils", "help.search", "file_utils",
    "CRANtools", "check_packages_in_dir", "package_dependencies", "updatePackageMenu", "setRepositories",
    "startDynamicHelp", "dynamicHelp", "Rdindex", "vignetteEngine", "buildVignettes", "testInstalledPackage",
    "package_native_routine_registration_skeleton", "savePlot", "x11", "Extract", "parallel", "warnErrList",
    "Rd2HTML", "make_translations_pkg", "userhooks", "pskill", "getDLLRegisteredRoutines", "library.dynam",
    "lsf", "rtags", "aspell", "vignette", "edit", "undoc", "QC", "codoc", "checkFF", "checkTnF",
    "checkS3methods", "checkMD5sums", "loadedNamespaces", "search", "dyn.load", "Sys.setlocale", "locales",
    "l10n_info", "iconv", "icuSetCollate", "capabilities", "Platform", "R.Version", "Version", "shutdown",
    "ns-load", "traceback", "bitmap", "dev.size", "embedFonts", "cairo", "png", "svg", "xfig", "quartzFonts",
    "recordGraphics", "dev.capabilities", "rapp", "nclass", "getGraphicsEvent", "pdf", "postscript", "ls_str",
    "hashtab", "pretty.Date")
db <- tools::Rd_db(args[1])
names(db) <- sub("\\.Rd$", "", names(db))
topics <- sort(setdiff(names(db), skip), method = "radix")
topics <- topics[grepl(paste0("^[", args[2], "]"), topics, ignore.case = TRUE)]
library(args[1], character.only = TRUE)
for (topic in topics) {
    file <- tempfile()
    tools::Rd2ex(db[[topic]], file)
    if (!file.exists(file)) next
    cat("==", topic, "==\n")
    set.seed(1)
    here <- new.env(parent = globalenv())
    e <- tryCatch({ source(file, local = here, echo = FALSE, print.eval = TRUE, max.deparse.length = Inf); NULL },
        error = function(e) e)
    if (!is.null(e)) cat("error:", conditionMessage(e), "\n")
    closeAllConnections()
    graphics.off()
    suppressWarnings(rm(list = ls(globalenv(), all.names = TRUE)[!ls(globalenv(), all.names = TRUE) %in%
        c("args", "skip", "db", "topics", "topic", ".Random.seed")], envir = globalenv()))
}
cat(length(topics), "topics\n")
