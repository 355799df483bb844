"""Where does each method's claim hold, and where does it fail, when conflict is set by knobs?"""
