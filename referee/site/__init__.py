"""The public site: pages made from the repository's files and its history, so that they cannot disagree with them.

    model        everything the pages are made from, read once: `Site`; and what a page is: `Page`
    past         its history, read at once
    build        `referee site build | serve`: pages -> a tree of plain Markdown -> HTML by mkdocs
    writing      Markdown from untrusted text: escaping, pictures, tables, templates
    home         the gallery of projects, the collection in numbers
    pictures     thumbnails and cards
    project      a page per project
    readme       what a team writes in its README, made harmless
    review       its review as a conversation, its timeline
    results      results per data set and metric
    families     a page per family of models
    guides       where the hand-written pages stand
    links        their links, made right on the site
    course       dates, people, who is at which stage; the last full re-run
    notebooks    notebooks as Markdown, made harmless
    reference    the interface of `common`, from its docstrings
    register     register.json, the feed of publications, social cards
    vendor       scripts and fonts of others, fetched once and checked

A page module offers `pages(site)`, which yields `Page`s; it writes nothing. The same repository gives the same bytes:
dates come from git, never from the clock.
"""
